//! The effects: watch, and carry out the plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::infra::{Host, Machine, Replica, ReplicaSpec};
use evroc_api::run::{REVISION_LABEL, Revision, SERVICE_LABEL, Service};
use evroc_controller::{Change, Error, Queue, Result, owned_by, report_status};
use evroc_placement::{may_allow_more, may_make_room};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::observe::{Observed, observe};
use super::plan::{Step, decision, plan};
use super::status::status;
use crate::context::{Run, WAITING};
use crate::reasons::is_failure;

/// Revisions that are reconciled at the same time. Too low has cold starts wait for each other; too high lets the API answer no
/// other client.
const CONCURRENCY: u16 = 16;

/// Runs the controller until the process ends.
pub async fn run(context: Arc<Run>) {
    let of_service = context.revisions_by_owner.clone();
    let (on_host, for_hosts) = (context.replicas_by_host.clone(), context.revisions_waiting.clone());
    let (for_machines, for_replicas) = (for_hosts.clone(), for_hosts.clone());
    let (book, for_quotas) = (context.book.clone(), for_hosts.clone());
    let queue = Queue::new(&context.revisions)
        .owns(&context.replicas)
        .on(&context.services, move |change: &Change<Service>| {
            // The newest revision follows from the generation.
            let of = |service: &Service| (service.uid(), service.metadata.generation);
            let uid = change.both().last().and_then(ResourceExt::uid).filter(|_| change.differs(of));
            uid.map(|uid| of_service.references(&uid)).unwrap_or_default()
        })
        // A host has more room, or the replicas on a host have lost or regained their connection.
        .on(&context.hosts, move |change: &Change<Host>| {
            let Some(host) = change.both().last().filter(|_| may_make_room(change) || change.new.is_none()) else {
                return vec![];
            };
            let replicas = on_host.get(&host.name_any());
            let owners = replicas.iter().flat_map(|replica| {
                let revision = ObjectRef::new(&replica.spec.revision);
                replica.namespace().map(|namespace| revision.within(&namespace))
            });
            for_hosts.references(WAITING).into_iter().chain(owners).collect()
        })
        .on(&context.quotas, move |change: &Change<ResourceQuota>| {
            if !may_allow_more(change) {
                return vec![];
            }
            book.forget_refusals();
            let namespace = change.both().last().and_then(ResourceExt::namespace);
            for_quotas.references(WAITING).into_iter().filter(|one| one.namespace == namespace).collect()
        })
        .on(
            &context.machines,
            move |change: &Change<Machine>| {
                if change.new.is_none() { for_machines.references(WAITING) } else { vec![] }
            },
        )
        .on(
            &context.replicas,
            move |change: &Change<Replica>| {
                if change.new.is_none() { for_replicas.references(WAITING) } else { vec![] }
            },
        );
    queue.run(CONCURRENCY, reconcile, context).await;
}

async fn reconcile(revision: Arc<Revision>, context: Arc<Run>) -> Result<Action> {
    let namespace = revision.namespace().unwrap_or_default();
    let Some(observed) = observe(&context, &namespace, &revision.name_any()).await? else {
        return Ok(Action::await_change());
    };
    // Idle time is measured in fractions of seconds; the written value is in whole ones.
    let now = (context.base.clock)();
    let decision = decision(&observed, context.settings.scale_to_zero_after, now);
    let api = Api::<Revision>::namespaced(context.base.client.clone(), &namespace);
    let shown = status(&observed, &decision, context.base.now());
    report_status(&context.base, &api, &observed.revision, &shown, is_failure).await?;
    let mut next: Option<Duration> = None;
    for step in plan(&observed, &decision, now) {
        match step {
            Step::LookAgain(pause) => next = Some(next.map_or(pause, |n| n.min(pause))),
            step => carry_out(&context, &observed, step).await?,
        }
    }
    Ok(next.map_or_else(Action::await_change, Action::requeue))
}

async fn carry_out(context: &Run, observed: &Observed, step: Step) -> Result<()> {
    let revision = &observed.revision;
    let api = Api::<Replica>::namespaced(context.base.client.clone(), &revision.namespace().unwrap_or_default());
    match step {
        Step::Create(name, spec) => create(context, &api, revision, &name, *spec).await,
        Step::Delete(name) => match observed.replicas.iter().find(|r| r.name_any() == name) {
            Some(replica) => context.replicas.delete(&api, replica).await,
            None => Ok(()),
        },
        Step::LookAgain(_) => Ok(()),
    }
}

async fn create(context: &Run, api: &Api<Replica>, revision: &Revision, name: &str, spec: ReplicaSpec) -> Result<()> {
    let (host, now) = (spec.host_name.clone(), context.base.now());
    match context.replicas.create_or_adopt(api, &replica(revision, name, spec)).await {
        Err(Error::Full { message, .. }) => {
            context.book.refused(&revision.uid().unwrap_or_default(), &host, &message, now);
            Err(Error::Changed(format!("place {name}")))
        }
        Err(Error::Refused { message, .. }) => {
            context.refusals.remember(revision, &message, now);
            Err(Error::Changed(format!("create {name}")))
        }
        other => other,
    }
}

/// Host and gateway have a finalizer on a replica from the start: the gateway until it has drained it, the host until it has cleaned up.
fn replica(revision: &Revision, name: &str, spec: ReplicaSpec) -> Replica {
    let labels = [(SERVICE_LABEL, spec.service.clone()), (REVISION_LABEL, spec.revision.clone())];
    let mut replica = Replica::new(name, spec);
    replica.metadata.labels = Some(BTreeMap::from(labels.map(|(key, value)| (key.to_owned(), value))));
    replica.metadata.owner_references = owned_by(revision);
    replica.metadata.finalizers = Some(vec![evroc_api::NODE_FINALIZER.into(), evroc_api::GATEWAY_FINALIZER.into()]);
    replica
}
