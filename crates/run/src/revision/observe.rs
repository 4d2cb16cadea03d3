//! Everything that matters for one revision.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Host, Replica};
use evroc_api::run::{REVISION_LABEL, Revision, Service};
use evroc_controller::{Result, api_error, get};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::RunContext;
use crate::image::{ImageError, allowed, own_repository};

/// A revision and what surrounds it, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The revision.
    pub revision: Revision,
    /// Whether it is its service's newest; false when the service is gone.
    pub newest: bool,
    /// Repository and digest of its image, or why it has none that may run.
    pub image: std::result::Result<(String, String), Verdict>,
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// All replicas of the cloud, for the room that is left.
    pub all_replicas: Vec<Replica>,
    /// All hosts.
    pub hosts: Vec<Host>,
}

/// Reads everything for one revision; `None` when it is gone.
pub async fn observe(context: &RunContext, namespace: &str, name: &str) -> Result<Option<Observed>> {
    let client = &context.base.client;
    let Some(revision) = get(&Api::<Revision>::namespaced(client.clone(), namespace), name).await? else {
        return Ok(None);
    };
    let service = get(&Api::<Service>::namespaced(client.clone(), namespace), &revision.spec.service).await?;
    let everything = ListParams::default();
    let all_replicas =
        Api::<Replica>::all(client.clone()).list(&everything).await.map_err(api_error("list replicas"))?.items;
    let own = |r: &&Replica| {
        r.namespace().as_deref() == Some(namespace) && r.labels().get(REVISION_LABEL).is_some_and(|l| l == name)
    };
    Ok(Some(Observed {
        newest: service.is_some_and(|s| crate::service::revision_name(&s) == name),
        image: image(context, &revision, namespace).await,
        replicas: all_replicas.iter().filter(own).cloned().collect(),
        all_replicas,
        hosts: Api::<Host>::all(client.clone()).list(&everything).await.map_err(api_error("list hosts"))?.items,
        revision,
    }))
}

/// A tag is resolved once: what was found then is what the revision runs for ever.
async fn image(
    context: &RunContext,
    revision: &Revision,
    group: &str,
) -> std::result::Result<(String, String), Verdict> {
    let image = &revision.spec.container.image;
    let reference = own_repository(image, &context.settings.domain, group)?;
    if let Some(digest) = revision.status.as_ref().and_then(|s| s.image_digest.clone()) {
        return Ok((reference.repository, digest));
    }
    match context.images.facts(&reference.repository, reference.reference()).await {
        Ok(facts) => allowed(image, &facts).map(|()| (reference.repository, facts.digest)),
        Err(ImageError::NotFound { .. }) => Err(Verdict::no(
            "ImageNotFound",
            format!(
                "spec.template.spec.containers[0].image: expected an image that was pushed to the registry, found none at {image}; push it, and the revision starts by itself"
            ),
        )),
        Err(error @ ImageError::Invalid { .. }) => Err(Verdict::no("ImageInvalid", error.to_string())),
        Err(error @ ImageError::Unavailable(_)) => {
            Err(Verdict::unknown("RegistryUnavailable", evroc_controller::chain(&error)))
        }
    }
}

/// Whether a replica's port accepts connections.
pub fn is_ready(replica: &Replica) -> bool {
    replica.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, READY))
}
