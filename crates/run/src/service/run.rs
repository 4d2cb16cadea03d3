//! The effects: watch, make the missing revision, write the status.

use std::collections::BTreeMap;
use std::sync::Arc;

use evroc_api::run::{Revision, RevisionSpec, SERVICE_LABEL, Service};
use evroc_controller::{
    Error, Result, api_error, controller, create_or_adopt, drive, get, owned_by, retry, write_status,
};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::watcher;

use super::status::{revision_name, status};
use crate::RunContext;

/// Runs the controller until the process ends.
pub async fn run(context: RunContext) {
    let client = context.base.client.clone();
    let stream = controller(Api::<Service>::all(client.clone()), watcher::Config::default())
        .owns(Api::<Revision>::all(client), watcher::Config::default())
        .run(
            reconcile,
            |object, error: &Error, context: Arc<RunContext>| retry(object, error, Arc::new(context.base.clone())),
            Arc::new(context),
        );
    drive(stream.boxed()).await;
}

async fn reconcile(service: Arc<Service>, context: Arc<RunContext>) -> Result<Action> {
    let namespace = service.namespace().unwrap_or_default();
    let services = Api::<Service>::namespaced(context.base.client.clone(), &namespace);
    let Some(service) = get(&services, &service.name_any()).await? else { return Ok(Action::await_change()) };
    let api = Api::<Revision>::namespaced(context.base.client.clone(), &namespace);
    let own = ListParams::default().labels(&format!("{SERVICE_LABEL}={}", service.name_any()));
    let mut revisions = api.list(&own).await.map_err(api_error("list revisions"))?.items;
    revisions.retain(|r| r.owner_references().iter().any(|owner| Some(&owner.uid) == service.uid().as_ref()));
    let is_deleted = service.metadata.deletion_timestamp.is_some();
    if !is_deleted
        && !revisions.iter().any(|r| r.name_any() == revision_name(&service))
        && let Some(revision) = revision(&service)
    {
        create_or_adopt(&api, &revision).await?;
    }
    write_status(&services, &service, &status(&service, &revisions, &context.settings, context.base.now())).await?;
    Ok(Action::await_change())
}

fn revision(service: &Service) -> Option<Revision> {
    let spec = RevisionSpec {
        service: service.name_any(),
        service_generation: service.metadata.generation.unwrap_or(1),
        container: service.spec.template.spec.containers.first()?.clone(),
    };
    let mut revision = Revision::new(&revision_name(service), spec);
    revision.metadata.labels = Some(BTreeMap::from([(SERVICE_LABEL.to_owned(), service.name_any())]));
    revision.metadata.owner_references = owned_by(service);
    Some(revision)
}
