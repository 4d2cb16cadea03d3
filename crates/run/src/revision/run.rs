//! The effects: watch, and carry out what was planned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::infra::{Host, Replica, ReplicaSpec};
use evroc_api::run::{REVISION_LABEL, Revision, SERVICE_LABEL, Service};
use evroc_controller::{
    Error, Result, controller, create_or_adopt, delete_if_present, drive, owned_by, retry, write_status,
};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use super::observe::{Observed, observe};
use super::plan::{Step, decision, plan};
use super::status::status;
use crate::RunContext;

/// Runs the controller until the process ends.
pub async fn run(context: RunContext) {
    let client = context.base.client.clone();
    let all = watcher::Config::default;
    let controller = controller(Api::<Revision>::all(client.clone()), all());
    let revisions = controller.store();
    let every = move || revisions.state().into_iter().collect::<Vec<_>>();
    let for_hosts = every.clone();
    let of_service = move |service: Service| {
        let own = every()
            .into_iter()
            .filter(|r| r.spec.service == service.name_any() && r.namespace() == service.namespace());
        own.map(|r| ObjectRef::from_obj(&*r)).collect::<Vec<_>>()
    };
    let stream = controller
        .owns(Api::<Replica>::all(client.clone()), all())
        .watches(Api::<Service>::all(client.clone()), all(), of_service)
        .watches(Api::<Host>::all(client), all(), move |_| {
            for_hosts().iter().map(|r| ObjectRef::from_obj(&**r)).collect::<Vec<_>>()
        })
        .run(
            reconcile,
            |object, error: &Error, context: Arc<RunContext>| retry(object, error, Arc::new(context.base.clone())),
            Arc::new(context),
        );
    drive(stream.boxed()).await;
}

async fn reconcile(revision: Arc<Revision>, context: Arc<RunContext>) -> Result<Action> {
    let namespace = revision.namespace().unwrap_or_default();
    let Some(observed) = observe(&context, &namespace, &revision.name_any()).await? else {
        return Ok(Action::await_change());
    };
    // Idle time is counted in fractions of seconds; what is written is in whole ones.
    let now = (context.base.clock)();
    let decision = decision(&observed, context.settings.scale_to_zero_after, now);
    let mut next: Option<Duration> = None;
    for step in plan(&observed, &decision, now) {
        match step {
            Step::LookAgain(pause) => next = Some(next.map_or(pause, |n| n.min(pause))),
            step => carry_out(&context, &observed, step).await?,
        }
    }
    let api = Api::<Revision>::namespaced(context.base.client.clone(), &namespace);
    write_status(&api, &observed.revision, &status(&observed, &decision, context.base.now())).await?;
    Ok(next.map_or_else(Action::await_change, Action::requeue))
}

async fn carry_out(context: &RunContext, observed: &Observed, step: Step) -> Result<()> {
    let api =
        Api::<Replica>::namespaced(context.base.client.clone(), &observed.revision.namespace().unwrap_or_default());
    match step {
        Step::Create(name, spec) => create_or_adopt(&api, &replica(&observed.revision, &name, *spec)).await,
        Step::Delete(name) => match observed.replicas.iter().find(|r| r.name_any() == name) {
            Some(replica) => delete_if_present(&api, replica).await,
            None => Ok(()),
        },
        Step::LookAgain(_) => Ok(()),
    }
}

/// Host and gateway hold a replica from the start: the gateway until it has drained it, the host until it has cleaned up.
fn replica(revision: &Revision, name: &str, spec: ReplicaSpec) -> Replica {
    let labels = [(SERVICE_LABEL, spec.service.clone()), (REVISION_LABEL, spec.revision.clone())];
    let mut replica = Replica::new(name, spec);
    replica.metadata.labels = Some(BTreeMap::from(labels.map(|(key, value)| (key.to_owned(), value))));
    replica.metadata.owner_references = owned_by(revision);
    replica.metadata.finalizers = Some(vec![evroc_api::NODE_FINALIZER.into(), evroc_api::GATEWAY_FINALIZER.into()]);
    replica
}
