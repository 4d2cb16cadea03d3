//! Everything that matters for one revision.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::Replica;
use evroc_api::run::{Revision, Service};
use evroc_controller::{Result, get};
use evroc_placement::HostFacts;
use kube::ResourceExt;
use kube::api::Api;

use crate::context::Run;
use crate::image::{ImageError, allowed, own_repository};
use crate::names::revision_name;

/// A revision and what surrounds it, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The revision.
    pub revision: Revision,
    /// Whether it is its service's newest; false if the service does not exist.
    pub newest: bool,
    /// Repository and digest of its image, or why it has none that may run.
    pub image: std::result::Result<(String, String), Verdict>,
    /// Its replicas.
    pub replicas: Vec<Replica>,
    /// All hosts.
    pub hosts: Vec<HostFacts>,
    /// The reason why the API refused its replicas for good.
    pub refused: Option<String>,
}

impl Observed {
    /// Whether a replica's host is ready: a replica on another may run or not, but cannot be reached.
    pub fn is_on_a_ready_host(&self, replica: &Replica) -> bool {
        self.hosts.iter().any(|host| host.is_ready && host.name == replica.spec.host_name)
    }
}

/// Reads everything for one revision; `None` if it does not exist. Revision and service are read afresh: which revision is the newest
/// must not be answered from a moment ago.
pub async fn observe(context: &Run, namespace: &str, name: &str) -> Result<Option<Observed>> {
    let client = &context.base.client;
    let Some(revision) = get(&Api::<Revision>::namespaced(client.clone(), namespace), name).await? else {
        return Ok(None);
    };
    let service = get(&Api::<Service>::namespaced(client.clone(), namespace), &revision.spec.service).await?;
    let image = image(context, &revision, namespace).await;
    context.book.settle().await?;
    let (uid, now) = (revision.uid().unwrap_or_default(), context.base.now());
    Ok(Some(Observed {
        newest: service.is_some_and(|s| revision_name(&s) == name),
        image,
        replicas: context.replicas_by_owner.get(&uid).iter().map(|replica| (**replica).clone()).collect(),
        hosts: context.book.facts(&uid, now),
        refused: context.refusals.of(&revision, now),
        revision,
    }))
}

/// A tag is resolved once: the revision runs that digest for ever.
async fn image(context: &Run, revision: &Revision, group: &str) -> std::result::Result<(String, String), Verdict> {
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
        Err(error @ ImageError::Invalid { .. }) => Err(Verdict::no("ImageUnreadable", error.to_string())),
        Err(error @ ImageError::Unavailable(_)) => {
            Err(Verdict::unknown("RegistryUnavailable", evroc_controller::chain(&error)))
        }
    }
}

/// Whether a replica's port accepts connections.
pub fn is_ready(replica: &Replica) -> bool {
    replica.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, READY))
}
