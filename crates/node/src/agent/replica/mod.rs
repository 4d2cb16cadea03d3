//! Replica -> container.
//!
//! ```text
//!                  ┌──────────── it cannot be observed ───────────▶ Unknown ── it can again ──┐
//!                  │                                                                          ▼
//!  Pending ─▶ Starting (image, container) ─▶ Running (its port accepts connections) ◀─────────┘
//!                 │ unfit, ended, not listening    │ ended by itself      │ deleted: the gateway drains it,
//!                 ▼                                ▼                      ▼ then its stop signal, then all pieces go
//!               Failed ◀────────────────────────────                   (absent)
//! ```
//! A container whose exit was not recorded (its shim was killed, the host restarted) is started again by its host; one that ended
//! by itself is replaced by control. A container that cannot be observed keeps its condition Ready: it may run, and the gateway
//! goes on sending requests to it.
//!
//! Ownership of writes: this module writes Replica.status and removes the host's finalizer.
//!
//! [`plan`] decides what to do (pure). What takes long, a start and an end, is a turn of the container's owner ([`turn`]), so that
//! nothing holds up a reconciliation: an end preempts a start that is under way.

mod images;
mod plan;
mod report;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evroc_api::NODE_FINALIZER;
use evroc_api::infra::Replica;
use evroc_controller::{Context, Result, chain, get, retry, run_on};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{reflector, watcher};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::DrainFlag;
use super::service_log::ServiceLogs;
use crate::container::containers::Containers;
#[cfg(test)]
use crate::container::containers::ObservedContainer;
use crate::metrics;
use crate::owner::Owners;

#[cfg(test)]
use plan::Kind;
use plan::{Observation, Step, plan};
pub use report::OBSERVED;
use turn::{Owned, Request};

/// How long a container gets to end after its stop signal.
const GRACE: Duration = Duration::from_secs(10);
/// Pause before a container is looked at again that could not be observed, started or ended. Lower costs more while a cause lasts;
/// higher is how long a cause outlives itself.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs the replicas of this host.
pub struct Replicas {
    base: Context,
    host: String,
    containers: Arc<dyn Containers>,
    logs: ServiceLogs,
    draining: DrainFlag,
    owners: Owners<Owned>,
    /// Containers whose end is waited for.
    watched: Mutex<HashSet<String>>,
    /// Containers that cannot be observed, and since when.
    unseen: Mutex<HashMap<String, Instant>>,
    /// Replicas that are deleted, and since when this agent knows.
    deleted: Mutex<HashMap<String, Instant>>,
    changed: mpsc::UnboundedSender<ObjectRef<Replica>>,
}

/// The replicas whose container changed, for [`run`].
pub struct Changed(mpsc::UnboundedReceiver<ObjectRef<Replica>>);

impl Replicas {
    /// Builds the runner of replicas, and the notification that a container changed.
    pub fn new(
        base: Context,
        host: String,
        containers: Arc<dyn Containers>,
        logs: ServiceLogs,
        draining: DrainFlag,
    ) -> (Arc<Self>, Changed) {
        let (changed, stream) = mpsc::unbounded_channel();
        let this = Arc::new_cyclic(|this: &std::sync::Weak<Self>| {
            let this = this.clone();
            Self {
                base,
                host,
                containers,
                logs,
                draining,
                owners: Owners::new(move |uid| Owned::new(this.clone(), uid)),
                watched: Mutex::default(),
                unseen: Mutex::default(),
                deleted: Mutex::default(),
                changed,
            }
        });
        (this, Changed(stream))
    }

    /// The containers of this host.
    pub(super) fn containers(&self) -> &Arc<dyn Containers> {
        &self.containers
    }

    /// The logs that are kept of removed containers.
    pub fn logs(&self) -> &ServiceLogs {
        &self.logs
    }

    pub(super) fn client(&self) -> kube::Client {
        self.base.client.clone()
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    fn api(&self, replica: &Replica) -> Api<Replica> {
        Api::namespaced(self.base.client.clone(), &replica.namespace().unwrap_or_default())
    }

    /// The replicas that the API has for this host.
    async fn wanted(&self) -> Result<Vec<Replica>> {
        let own = ListParams::default().fields(&format!("spec.hostName={}", self.host));
        let all = Api::<Replica>::all(self.base.client.clone()).list(&own).await;
        Ok(all.map_err(evroc_controller::api_error("list replicas"))?.items)
    }

    /// Removes from this host everything of replicas that no longer exist.
    pub async fn sweep(&self) -> Result<()> {
        let known = self.containers.known();
        let wanted: HashSet<String> = self.wanted().await?.iter().filter_map(ResourceExt::uid).collect();
        for uid in known.into_iter().filter(|uid| !wanted.contains(uid)) {
            tracing::info!(uid, "remove a container whose replica does not exist");
            if let Err(error) = self.containers.remove(&uid).await {
                tracing::warn!(uid, error = chain(&error), "remove a container whose replica does not exist");
            }
        }
        Ok(())
    }

    /// Stops every container of this host; the next start of the host runs them again. Returns how many there were. Set
    /// [`DrainFlag`] before.
    pub async fn stop_all(&self) -> u32 {
        // A start that is under way has an owner before it has pieces.
        let uids: HashSet<String> = self.containers.known().into_iter().chain(self.owners.uids()).collect();
        let stops = uids.into_iter().map(|uid| async move {
            if let Err(error) = self.owners.ask(&uid, Request::Drain).await {
                tracing::warn!(uid, error = chain(&error), "stop a container");
            }
        });
        u32::try_from(futures::future::join_all(stops).await.len()).unwrap_or(u32::MAX)
    }

    /// Reconciles this replica again when its container ends.
    fn watch(self: &Arc<Self>, replica: &Replica) {
        let (uid, object) = (replica.uid().unwrap_or_default(), ObjectRef::from_obj(replica));
        if !locked(&self.watched).insert(uid.clone()) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(error) = this.containers.wait(&uid).await {
                tracing::debug!(uid, error = chain(&error), "wait for the end of a container");
                // Whatever the cause, it must not lead to a tight loop.
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            locked(&this.watched).remove(&uid);
            this.wake(object);
        });
    }

    fn wake(&self, object: ObjectRef<Replica>) {
        // The receiver is dropped when the agent ends.
        let _ = self.changed.send(object);
    }

    /// Hands a request to the container's owner, and has the replica looked at again if that failed.
    fn ask(self: &Arc<Self>, replica: &Replica, request: Request) {
        let (this, uid, object) = (self.clone(), replica.uid().unwrap_or_default(), ObjectRef::from_obj(replica));
        tokio::spawn(async move {
            if let Err(error) = this.owners.ask(&uid, request).await {
                tracing::warn!(uid, error = chain(&error), "start or end a container, will be tried again");
                tokio::time::sleep(LOOK_AGAIN).await;
                this.wake(object);
            }
        });
    }

    /// How long the replica has been deleted, by this host's clock alone: the API server's may differ.
    fn deleted_for(&self, replica: &Replica) -> Duration {
        // Without its finalizer the host has nothing to do with it any more.
        let is_ours = replica.finalizers().iter().any(|finalizer| finalizer == NODE_FINALIZER);
        if replica.metadata.deletion_timestamp.is_none() || !is_ours {
            return Duration::ZERO;
        }
        let uid = replica.uid().unwrap_or_default();
        locked(&self.deleted).entry(uid).or_insert_with(Instant::now).elapsed()
    }

    async fn observe(&self, uid: &str) -> Observation {
        if let Some(kind) = self.owners.doing(uid) {
            return Observation::Busy(kind);
        }
        match self.containers.observe(uid).await {
            Ok(observed) => {
                locked(&self.unseen).remove(uid);
                Observation::Seen(observed)
            }
            Err(error) => {
                let since = *locked(&self.unseen).entry(uid.to_owned()).or_insert_with(Instant::now);
                Observation::Unseen { since: since.elapsed(), error: chain(&error) }
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the controller until the process ends.
pub async fn run(replicas: Arc<Replicas>, changed: Changed) {
    let own = watcher::Config::default().fields(&format!("spec.hostName={}", replicas.host));
    let (store, writer) = reflector::store();
    let controller = run_on(
        Api::<Replica>::all(replicas.base.client.clone()),
        own,
        UnboundedReceiverStream::new(changed.0),
        reconcile,
        |object, error, this: Arc<Replicas>| retry(object, error, Arc::new(this.base.clone())),
        replicas.clone(),
        (store.clone(), writer),
    );
    let _followed = metrics::follow_replicas(store);
    tokio::join!(controller, images::run(replicas));
}

async fn reconcile(replica: Arc<Replica>, this: Arc<Replicas>) -> Result<Action> {
    let api = this.api(&replica);
    let Some(replica) = get(&api, &replica.name_any()).await? else { return Ok(Action::await_change()) };
    if this.draining.is_set() {
        return Ok(Action::await_change());
    }
    let observation = this.observe(&replica.uid().unwrap_or_default()).await;
    match plan(&replica, &observation, this.deleted_for(&replica)) {
        Step::Wait => {}
        Step::Watch => {
            this.settle_observed(&api, &replica).await?;
            this.watch(&replica);
        }
        Step::Start => this.ask(&replica, Request::Start(Box::new(replica.clone()))),
        Step::Fail(why) => this.fail(&api, &replica, &why).await?,
        Step::LookAgain(why) => {
            if let Some(why) = why {
                this.report_unseen(&api, &replica, &why).await?;
            }
            return Ok(Action::requeue(LOOK_AGAIN));
        }
        Step::Drain(left) => return Ok(Action::requeue(left)),
        Step::End => this.ask(&replica, Request::End(Box::new(replica.clone()))),
    }
    Ok(Action::await_change())
}
