//! Replica -> container.
//!
//! ```text
//!  Pending ─▶ Starting (image, container) ─▶ Running (its port accepts connections) ─▶ Failed (ended by itself)
//!                 │ unfit, ended, deaf            │ deleted: the gateway drains it, then SIGTERM, then all pieces go
//!                 ▼                               ▼
//!               Failed                          (gone)
//! ```
//! A container whose end nobody saw (its shim was killed, the host restarted) is started again by its host; one that ended
//! by itself is replaced by control. Who writes what: this module writes Replica.status and the host's finalizer.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Replica, ReplicaPhase, ReplicaStatus};
use evroc_api::run::Service;
use evroc_api::{GATEWAY_FINALIZER, NODE_FINALIZER};
use evroc_controller::{Context, Result, chain, controller, drive, get, remove_finalizer, retry, write_status};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::watcher;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::Draining;
use super::service_log::ServiceLogs;
use crate::container::bundle::Workload;
use crate::container::image::{ImageReference, ImageStore};
use crate::container::runner::{Container, ContainerRunner, ContainerSpec, Found, stop_signal};
use crate::shim::Exit;

/// How long the gateway gets to drain a replica. Too low cuts long answers off; too high keeps a dead gateway's replicas.
const DRAIN: Duration = Duration::from_secs(30);
/// How long a container gets to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How long a container may take until its port accepts connections.
const READINESS: Duration = Duration::from_secs(60);
/// A start that takes longer is told; telling every fast one would cost a durable write each.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Runs the replicas of this host.
pub struct Replicas {
    base: Context,
    host: String,
    runner: ContainerRunner,
    images: ImageStore,
    logs: ServiceLogs,
    draining: Draining,
    /// Containers whose end is waited for.
    watched: Mutex<HashSet<String>>,
    ended: mpsc::UnboundedSender<()>,
}

impl Replicas {
    /// What runs replicas, and what tells of containers that ended.
    pub fn new(
        base: Context,
        host: String,
        runner: ContainerRunner,
        images: ImageStore,
        logs: ServiceLogs,
        draining: Draining,
    ) -> (Arc<Self>, Ended) {
        let (ended, stream) = mpsc::unbounded_channel();
        (Arc::new(Self { base, host, runner, images, logs, draining, watched: Mutex::default(), ended }), Ended(stream))
    }

    /// What streams need: where containers are, what is kept of those that are gone, and who tells which there are.
    pub(super) fn runner(&self) -> &ContainerRunner {
        &self.runner
    }

    /// What is kept of containers that are gone.
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

    /// Removes what is on this host of replicas that no longer exist.
    pub async fn sweep(&self) -> Result<()> {
        let known = self.runner.known();
        let own = kube::api::ListParams::default().fields(&format!("spec.hostName={}", self.host));
        let wanted = Api::<Replica>::all(self.base.client.clone())
            .list(&own)
            .await
            .map_err(evroc_controller::api_error("list replicas"))?;
        let wanted: HashSet<String> = wanted.items.iter().filter_map(ResourceExt::uid).collect();
        for uid in known.into_iter().filter(|uid| !wanted.contains(uid)) {
            tracing::info!(uid, "removing a container that is not wanted any more");
            if let Err(error) = self.runner.remove(&uid).await {
                tracing::warn!(uid, error = chain(&error), "cannot remove a container");
            }
        }
        Ok(())
    }

    /// Stops every container of this host; the next start of the host runs them again. Says how many there were.
    pub async fn stop_all(&self) -> u32 {
        let stops = self.runner.known().into_iter().map(|uid| async move {
            if let Ok(Found::Running(container)) = self.runner.find(&uid).await
                && let Err(error) = container.stop(stop_signal(""), GRACE).await
            {
                tracing::warn!(uid, error = chain(&error), "cannot stop a container politely");
            }
            if let Err(error) = self.runner.remove(&uid).await {
                tracing::warn!(uid, error = chain(&error), "cannot remove a container");
            }
        });
        u32::try_from(futures::future::join_all(stops).await.len()).unwrap_or(u32::MAX)
    }
}

/// Rings when a container ended, for [`run`].
pub struct Ended(mpsc::UnboundedReceiver<()>);

/// Runs the controller until the process ends.
pub async fn run(replicas: Arc<Replicas>, ended: Ended) {
    let own = watcher::Config::default().fields(&format!("spec.hostName={}", replicas.host));
    let stream = controller(Api::<Replica>::all(replicas.base.client.clone()), own)
        .reconcile_all_on(UnboundedReceiverStream::new(ended.0))
        .run(
            reconcile,
            |object, error, this: Arc<Replicas>| retry(object, error, Arc::new(this.base.clone())),
            replicas,
        );
    drive(stream.boxed()).await;
}

async fn reconcile(replica: Arc<Replica>, this: Arc<Replicas>) -> Result<Action> {
    let api = this.api(&replica);
    let Some(replica) = get(&api, &replica.name_any()).await? else { return Ok(Action::await_change()) };
    if this.draining.is_set() {
        return Ok(Action::await_change());
    }
    if replica.metadata.deletion_timestamp.is_some() {
        return this.end(&api, &replica).await;
    }
    let phase = replica.status.as_ref().and_then(|s| s.phase);
    if phase == Some(ReplicaPhase::Failed) {
        return Ok(Action::await_change());
    }
    let uid = replica.uid().unwrap_or_default();
    match this.runner.find(&uid).await {
        Ok(Found::Running(container)) if phase == Some(ReplicaPhase::Running) => this.watch(&replica, &container),
        // Nobody saw its end: it is the host's to start it again.
        Ok(Found::Ended(exit)) if exit.code.is_some() || exit.signal.is_some() => {
            this.fail(&api, &replica, &ended_verdict(&exit)).await?
        }
        Ok(found) => {
            if let Found::Ended(exit) = found {
                tracing::info!(replica = replica.name_any(), reason = exit.reason, "container is started again");
            }
            this.start(&api, &replica).await?;
        }
        Err(error) => this.fail(&api, &replica, &Verdict::no("ContainerFailed", chain(&error))).await?,
    }
    Ok(Action::await_change())
}

impl Replicas {
    async fn start(&self, api: &Api<Replica>, replica: &Replica) -> Result<()> {
        let starting = self.bring_up(replica);
        tokio::pin!(starting);
        let mut replica = replica.clone();
        let outcome = match tokio::time::timeout(TELL_AFTER, &mut starting).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let verdict =
                    Verdict::no("Starting", "the image is being fetched or the container is not listening yet");
                self.report(api, &replica, ReplicaPhase::Starting, &verdict).await?;
                let outcome = starting.await;
                let Some(now) = get(api, &replica.name_any()).await? else { return Ok(()) };
                replica = now;
                outcome
            }
        };
        match outcome {
            Ok(container) => {
                self.report(
                    api,
                    &replica,
                    ReplicaPhase::Running,
                    &Verdict::yes("Ready", "its port accepts connections"),
                )
                .await?;
                self.watch(&replica, &container);
                Ok(())
            }
            Err(why) => self.fail(api, &replica, &why).await,
        }
    }

    /// Image, container, readiness.
    async fn bring_up(&self, replica: &Replica) -> std::result::Result<Container, Verdict> {
        let spec = &replica.spec;
        let digest =
            spec.digest.parse().map_err(|error| Verdict::no("ImageInvalid", format!("spec.digest: {error}")))?;
        let written = format!("{}@{}", spec.repository, spec.digest);
        let reference = ImageReference { written, repository: spec.repository.clone(), digest };
        let image =
            self.images.ensure(&reference).await.map_err(|error| Verdict::no("ImagePullFailed", chain(&error)))?;
        let port = u16::try_from(spec.port)
            .map_err(|_| Verdict::no("ContainerInvalid", format!("spec.port: {} is not a port", spec.port)))?;
        let workload = Workload {
            command: spec.command.clone(),
            args: spec.args.clone(),
            env: spec.env.iter().map(|e| (e.name.clone(), e.value.clone())).collect(),
            port,
            memory_bytes: spec.memory_bytes,
            cpu_millis: spec.cpu_millis,
            hostname: replica.name_any(),
        };
        let container = ContainerSpec { uid: replica.uid().unwrap_or_default(), image, workload };
        let container = self.runner.start(&container).await.map_err(|error| {
            let reason = if error.is_permanent() { "ContainerInvalid" } else { "ContainerFailed" };
            Verdict::no(reason, chain(&error))
        })?;
        match tokio::time::timeout(READINESS, container.wait_ready(port)).await {
            Ok(Ok(())) => Ok(container),
            Ok(Err(crate::container::runner::ContainerError::Ended(exit))) => Err(ended_verdict(&exit)),
            Ok(Err(error)) => Err(Verdict::no("ContainerFailed", chain(&error))),
            Err(_) => Err(Verdict::no(
                "ContainerNotListening",
                format!(
                    "the container did not listen on port {port} within {} s: listen on the port that PORT says, on 0.0.0.0",
                    READINESS.as_secs()
                ),
            )),
        }
    }

    async fn fail(&self, api: &Api<Replica>, replica: &Replica, why: &Verdict) -> Result<()> {
        tracing::info!(replica = replica.name_any(), reason = why.reason, message = why.message, "replica failed");
        self.report(api, replica, ReplicaPhase::Failed, why).await
    }

    async fn report(
        &self,
        api: &Api<Replica>,
        replica: &Replica,
        phase: ReplicaPhase,
        verdict: &Verdict,
    ) -> Result<()> {
        let mut status: ReplicaStatus = replica.status.clone().unwrap_or_default();
        status.phase = Some(phase);
        conditions::set(&mut status.conditions, READY, verdict, replica.metadata.generation, self.base.now());
        write_status(api, replica, &status).await.map(|_| ())
    }

    /// Has everything looked at again when the container ends.
    fn watch(&self, replica: &Replica, container: &Container) {
        let uid = replica.uid().unwrap_or_default();
        if !self.watched().insert(uid.clone()) {
            return;
        }
        let (container, ended) = (container.clone(), self.ended.clone());
        tokio::spawn(async move {
            if let Err(error) = container.wait().await {
                tracing::debug!(uid, error = chain(&error), "lost sight of a container");
            }
            // Nobody listens any more when the agent ends.
            let _ = ended.send(());
        });
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the gateway, then ends the container and removes every piece of it.
    async fn end(&self, api: &Api<Replica>, replica: &Replica) -> Result<Action> {
        if !replica.finalizers().iter().any(|f| f == NODE_FINALIZER) {
            return Ok(Action::await_change());
        }
        let uid = replica.uid().unwrap_or_default();
        let running = match self.runner.find(&uid).await {
            Ok(Found::Running(container)) => Some(container),
            _ => None,
        };
        let is_held = replica.finalizers().iter().any(|f| f == GATEWAY_FINALIZER);
        if let (true, Some(_), Some(since)) = (is_held, &running, &replica.metadata.deletion_timestamp) {
            let left = DRAIN.saturating_sub(self.base.now().duration_since(since.0).unsigned_abs());
            if !left.is_zero() {
                return Ok(Action::requeue(left));
            }
        }
        if let Some(container) = running
            && let Err(error) = container.stop(stop_signal(""), GRACE).await
        {
            tracing::warn!(replica = replica.name_any(), error = chain(&error), "cannot stop a container politely");
        }
        // Logs go with their service.
        let services = Api::<Service>::namespaced(self.base.client.clone(), &replica.namespace().unwrap_or_default());
        if get(&services, &replica.spec.service).await?.is_some()
            && let Err(error) = self.logs.keep(replica, &self.runner.shim_dir(&uid))
        {
            tracing::warn!(replica = replica.name_any(), %error, "the log of a container could not be kept");
        }
        if let Err(error) = self.runner.remove(&uid).await {
            tracing::warn!(
                replica = replica.name_any(),
                error = chain(&error),
                "cannot remove a container, will be tried again"
            );
            return Ok(Action::requeue(Duration::from_secs(1)));
        }
        self.watched().remove(&uid);
        remove_finalizer(api, replica, NODE_FINALIZER).await?;
        if is_held {
            // A gateway that never answered does not keep what is gone.
            if let Some(left) = get(api, &replica.name_any()).await? {
                remove_finalizer(api, &left, GATEWAY_FINALIZER).await?;
            }
        }
        Ok(Action::await_change())
    }
}

fn ended_verdict(exit: &Exit) -> Verdict {
    let last =
        exit.stderr_tail.trim().lines().next_back().map(|line| format!("; it last said: {line}")).unwrap_or_default();
    let reason = if exit.oom { "ContainerOutOfMemory" } else { "ContainerExited" };
    Verdict::no(reason, format!("the container {}{last}", exit.reason))
}
