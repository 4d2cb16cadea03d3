//! The turns of a container's owner: start it, end it, stop it with its host.

use std::sync::{Arc, Weak};
use std::time::Duration;

use evroc_api::conditions::Verdict;
use evroc_api::infra::{Replica, ReplicaPhase};
use evroc_api::run::Service;
use evroc_api::{GATEWAY_FINALIZER, NODE_FINALIZER};
use evroc_controller::{chain, get, remove_finalizer};
use kube::ResourceExt;
use kube::api::Api;

use super::plan::{Kind, ended_verdict};
use super::{GRACE, Replicas, locked};
use crate::container::bundle::Workload as ContainerWorkload;
use crate::container::image::ImageReference;
use crate::container::runner::{ContainerError, ContainerSpec};
use crate::metrics;
use crate::owner::{Arrival, Turn, Workload};

/// How long a container may take until its port accepts connections.
const READINESS: Duration = Duration::from_secs(60);
/// A start that takes longer is reported; reporting every fast one would cost a durable write each.
const REPORT_AFTER: Duration = Duration::from_secs(1);

/// A request to the owner of a container.
#[derive(Debug)]
pub(super) enum Request {
    /// Start it and report how that went.
    Start(Box<Replica>),
    /// End it, remove every piece of it, and let its replica go.
    End(Box<Replica>),
    /// Stop it because the host is being stopped; its replica stays.
    Drain,
}

/// The reason why a turn failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnError {
    #[error(transparent)]
    Api(#[from] evroc_controller::Error),
    #[error("remove container {uid}")]
    Remove {
        uid: String,
        #[source]
        source: ContainerError,
    },
}

/// The container of one replica.
pub(super) struct Owned {
    replicas: Weak<Replicas>,
    uid: String,
}

impl Owned {
    pub(super) fn new(replicas: Weak<Replicas>, uid: &str) -> Self {
        Self { replicas, uid: uid.to_owned() }
    }
}

impl Workload for Owned {
    type Request = Request;
    type Kind = Kind;
    type Answer = ();
    type Error = TurnError;

    fn kind(request: &Request) -> Kind {
        match request {
            Request::Start(_) => Kind::Start,
            Request::End(_) => Kind::End,
            Request::Drain => Kind::Drain,
        }
    }

    fn arrive(ahead: &[Kind], request: Kind) -> Arrival {
        match request {
            _ if ahead.contains(&request) => Arrival::Join,
            Kind::Start if !ahead.is_empty() => Arrival::Refuse("the container is being ended"),
            // The step under way is of no use any more; the containers wait for those parts of it that cannot be dropped.
            Kind::End | Kind::Drain if ahead == [Kind::Start] => Arrival::Preempt,
            _ => Arrival::Queue,
        }
    }

    async fn turn(self: Arc<Self>, request: Request) -> Result<Turn<()>, TurnError> {
        let Some(replicas) = self.replicas.upgrade() else { return Ok(Turn::Removed(())) };
        match request {
            Request::Start(_) if replicas.draining.is_set() => Ok(Turn::Refused("the host is being stopped")),
            Request::Start(replica) => replicas.start(&replica).await.map(Turn::Done),
            Request::End(replica) => replicas.end(&replica).await.map(Turn::Removed),
            Request::Drain => replicas.drain(&self.uid).await.map(Turn::Removed),
        }
    }
}

impl Replicas {
    async fn start(self: &Arc<Self>, replica: &Replica) -> Result<(), TurnError> {
        let api = self.api(replica);
        let starting = metrics::measured(metrics::Work::Container, self.bring_up(replica));
        tokio::pin!(starting);
        let mut replica = replica.clone();
        let outcome = match tokio::time::timeout(REPORT_AFTER, &mut starting).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let verdict =
                    Verdict::no("Starting", "the image is being fetched or the container is not listening yet");
                self.report(&api, &replica, ReplicaPhase::Starting, &verdict).await?;
                let outcome = starting.await;
                let Some(now) = get(&api, &replica.name_any()).await? else { return Ok(()) };
                replica = now;
                outcome
            }
        };
        match outcome {
            Ok(()) => {
                let ready = Verdict::yes("Ready", "its port accepts connections");
                self.report(&api, &replica, ReplicaPhase::Running, &ready).await?;
                self.watch(&replica);
            }
            Err(why) => self.fail(&api, &replica, &why).await?,
        }
        Ok(())
    }

    /// Image, container, readiness.
    async fn bring_up(&self, replica: &Replica) -> Result<(), Verdict> {
        let (spec, uid) = (&replica.spec, replica.uid().unwrap_or_default());
        let reference = image_of(replica).map_err(|problem| Verdict::no("ImageInvalid", problem))?;
        let port = u16::try_from(spec.port)
            .map_err(|_| Verdict::no("ContainerInvalid", format!("spec.port: {} is not a port", spec.port)))?;
        let image = self.containers.pull(&reference).await;
        let image = image.map_err(|error| Verdict::no("ImagePullFailed", chain(&error)))?;
        let workload = ContainerWorkload {
            command: spec.command.clone(),
            args: spec.args.clone(),
            env: spec.env.iter().map(|e| (e.name.clone(), e.value.clone())).collect(),
            port,
            memory_bytes: spec.memory_bytes,
            cpu_millis: spec.cpu_millis,
            hostname: replica.name_any(),
        };
        let container = ContainerSpec { uid: uid.clone(), image, workload };
        self.containers.start(&container).await.map_err(|error| {
            let reason = if error.is_permanent() { "ContainerInvalid" } else { "ContainerFailed" };
            Verdict::no(reason, chain(&error))
        })?;
        match tokio::time::timeout(READINESS, self.containers.wait_ready(&uid, port)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ContainerError::Ended(exit))) => Err(ended_verdict(&exit)),
            Ok(Err(error)) => Err(Verdict::no("ContainerFailed", chain(&error))),
            Err(_) => Err(Verdict::no(
                "ContainerNotListening",
                format!(
                    "the container did not listen on port {port} within {} s: listen on the port in the variable PORT, on 0.0.0.0",
                    READINESS.as_secs()
                ),
            )),
        }
    }

    /// Ends the container, keeps its log, removes every piece of it and then the finalizers.
    async fn end(&self, replica: &Replica) -> Result<(), TurnError> {
        let (api, uid) = (self.api(replica), replica.uid().unwrap_or_default());
        if let Err(error) = self.containers.stop(&uid, GRACE).await {
            tracing::warn!(replica = replica.name_any(), error = chain(&error), "stop a container by its signal");
        }
        // Logs are removed with their service.
        let services = Api::<Service>::namespaced(self.base.client.clone(), &replica.namespace().unwrap_or_default());
        if get(&services, &replica.spec.service).await?.is_some()
            && let Err(error) = self.logs.keep(replica, &self.containers.log_dir(&uid))
        {
            tracing::warn!(replica = replica.name_any(), %error, "keep the log of a container");
        }
        self.remove(&uid).await?;
        if let Some(now) = get(&api, &replica.name_any()).await? {
            remove_finalizer(&api, &now, NODE_FINALIZER).await?;
        }
        // A gateway that never answered does not keep a replica whose container is removed.
        if let Some(left) = get(&api, &replica.name_any()).await?
            && left.finalizers().iter().any(|f| f == GATEWAY_FINALIZER)
        {
            remove_finalizer(&api, &left, GATEWAY_FINALIZER).await?;
        }
        Ok(())
    }

    async fn drain(&self, uid: &str) -> Result<(), TurnError> {
        if let Err(error) = self.containers.stop(uid, GRACE).await {
            tracing::warn!(uid, error = chain(&error), "stop a container by its signal");
        }
        self.remove(uid).await
    }

    async fn remove(&self, uid: &str) -> Result<(), TurnError> {
        let removed = self.containers.remove(uid).await;
        removed.map_err(|source| TurnError::Remove { uid: uid.to_owned(), source })?;
        locked(&self.unseen).remove(uid);
        locked(&self.deleted).remove(uid);
        Ok(())
    }
}

/// The image that a replica names.
pub(super) fn image_of(replica: &Replica) -> Result<ImageReference, String> {
    let spec = &replica.spec;
    let digest = spec.digest.parse().map_err(|error| format!("spec.digest: {error}"))?;
    let written = format!("{}@{}", spec.repository, spec.digest);
    Ok(ImageReference { written, repository: spec.repository.clone(), digest })
}
