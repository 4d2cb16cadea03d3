//! The effects: watch, make the missing revision, remove the oldest, write the status.

use std::collections::BTreeMap;
use std::sync::Arc;

use evroc_api::run::{Revision, RevisionSpec, SERVICE_LABEL, Service};
use evroc_controller::{Error, Queue, Result, get, owned_by, report_status};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;

use super::history::superfluous;
use super::status::status;
use crate::context::Run;
use crate::names::revision_name;
use crate::reasons::is_failure;

/// Services that are reconciled at the same time.
const CONCURRENCY: u16 = 16;

/// Runs the controller until the process ends.
pub async fn run(context: Arc<Run>) {
    Queue::new(&context.services).owns(&context.revisions).run(CONCURRENCY, reconcile, context).await;
}

async fn reconcile(service: Arc<Service>, context: Arc<Run>) -> Result<Action> {
    let namespace = service.namespace().unwrap_or_default();
    let services = Api::<Service>::namespaced(context.base.client.clone(), &namespace);
    let Some(service) = get(&services, &service.name_any()).await? else { return Ok(Action::await_change()) };
    context.revisions.settle().await?;
    let api = Api::<Revision>::namespaced(context.base.client.clone(), &namespace);
    let owned = context.revisions_by_owner.get(&service.uid().unwrap_or_default());
    let revisions: Vec<Revision> = owned.iter().map(|revision| (**revision).clone()).collect();
    let now = context.base.now();
    let is_deleted = service.metadata.deletion_timestamp.is_some();
    let mut refused = context.refusals.of(&service, now);
    let mut next = Action::await_change();
    if !is_deleted
        && refused.is_none()
        && !revisions.iter().any(|r| r.name_any() == revision_name(&service))
        && let Some(revision) = revision(&service)
    {
        match context.revisions.create_or_adopt(&api, &revision).await {
            Err(Error::Refused { message, .. }) => {
                next = Action::requeue(context.refusals.remember(&service, &message, now));
                refused = Some(message);
            }
            other => other?,
        }
    }
    let shown = status(&service, &revisions, refused.as_deref(), &context.settings, now);
    report_status(&context.base, &services, &service, &shown, is_failure).await?;
    if !is_deleted {
        for revision in superfluous(&revisions, &shown) {
            context.revisions.delete(&api, revision).await?;
        }
    }
    Ok(next)
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
