//! Machine -> guest.
//!
//! ```text
//!  Pending ─▶ Starting ─▶ Running ◀─▶ Paused (the hypervisor lives and does not execute the guest)
//!     │ cannot start         │ ├─────▶ Stopped (the guest powered itself off) or Failed (its hypervisor ended)
//!     ▼                      │ └─────▶ Unknown (the host cannot find out) ─▶ whatever the next look finds
//!   Failed                   ▼ deleted: power button, then quit, then kill; every trace is removed
//!                         Stopping
//! ```
//! - Only the record of an end (`exit.json`) makes a machine Stopped or Failed. A look that fails is repeated, and reported as Unknown.
//! - A guest whose exit was not recorded (its shim was killed, the host restarted or was stopped in good order) is started again by its host,
//!   with that reason; one that ended by itself is control's to start again.
//! - A machine that the API does not list is left running and reported ([`sweep`]).
//!
//! Ownership of writes: this module writes Machine.status and the host's finalizer. Every change of a guest is a request to the
//! machine's owner ([`crate::machine::owner`]).

mod drain;
mod phase;
mod ready;
mod start;
mod step;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use evroc_api::NODE_FINALIZER;
use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Machine, Volume};
use evroc_controller::{Context, Result, get, remove_finalizer, retry, run_on, write_status};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::host::{Accelerator, HostConditions};
use crate::io::BoxDuplex;
use crate::machine::VolumeUse;
use crate::machine::guests::Guests;
use crate::machine::owner::OwnedMachines;
use crate::net::network::Network;
use crate::owner::DrainFlag;
use ready::Watched;
use step::Next;

/// Runs the machines of this host.
pub struct Machines {
    base: Context,
    host: String,
    work: Work,
}

/// The runner of machines, without the API.
pub(crate) struct Work {
    host: String,
    owned: OwnedMachines,
    network: Arc<dyn Network>,
    accelerator: watch::Receiver<Option<Accelerator>>,
    conditions: HostConditions,
    /// A file per machine that was stopped with the host and is to run again.
    stopped_with_host: PathBuf,
    /// The watch over the present run of each machine, by uid.
    watched: Mutex<HashMap<String, Watched>>,
    /// Looks that failed in a row, by uid.
    failed_looks: Mutex<HashMap<String, u32>>,
    changed: mpsc::UnboundedSender<ObjectRef<Machine>>,
}

/// The machines of which something changed on this host, for [`run`].
pub struct Changes(mpsc::UnboundedReceiver<ObjectRef<Machine>>);

impl Machines {
    /// Builds the runner of machines. `state` is the node's folder.
    #[allow(clippy::too_many_arguments, reason = "each is a part of the host; called once")]
    pub fn new(
        base: Context,
        host: String,
        state: &std::path::Path,
        guests: Arc<dyn Guests>,
        network: Arc<dyn Network>,
        accelerator: watch::Receiver<Option<Accelerator>>,
        draining: DrainFlag,
        conditions: HostConditions,
    ) -> std::io::Result<(Arc<Self>, Changes)> {
        let owned = OwnedMachines::new(guests, draining);
        let (work, changes) = Work::new(host.clone(), state, owned, network, accelerator, conditions)?;
        Ok((Arc::new(Self { base, host, work }), changes))
    }

    /// The machines of this host with their owners.
    pub fn owned(&self) -> &OwnedMachines {
        &self.work.owned
    }

    /// Opens a TCP connection to a port of a machine.
    pub async fn connect(&self, uid: &str, port: u16) -> std::io::Result<BoxDuplex> {
        let machines = self.list().await.map_err(std::io::Error::other)?;
        let machine = machines.into_iter().find(|m| m.uid().as_deref() == Some(uid));
        let machine = machine.ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::NotFound, format!("machine {uid} is not on this host"))
        })?;
        let address: Ipv4Addr = machine.spec.network.address.parse().map_err(std::io::Error::other)?;
        self.work.network.connect(&machine.spec.network.vpc_uid, SocketAddr::from((address, port))).await
    }

    /// The machines that are bound to this host.
    async fn list(&self) -> std::result::Result<Vec<Machine>, kube::Error> {
        let own = ListParams::default().fields(&format!("spec.hostName={}", self.host));
        Ok(Api::<Machine>::all(self.base.client.clone()).list(&own).await?.items)
    }

    /// Stops every guest of this host; the next start of the host runs them again. Returns how many powered off on request, and how
    /// many had to be ended otherwise.
    pub async fn stop_all(&self, grace: Duration) -> (u32, u32) {
        self.work.stop_all(grace).await
    }
}

impl Work {
    pub(crate) fn new(
        host: String,
        state: &std::path::Path,
        owned: OwnedMachines,
        network: Arc<dyn Network>,
        accelerator: watch::Receiver<Option<Accelerator>>,
        conditions: HostConditions,
    ) -> std::io::Result<(Self, Changes)> {
        let stopped_with_host = state.join("stopped-with-host");
        std::fs::create_dir_all(&stopped_with_host)?;
        let (changed, stream) = mpsc::unbounded_channel();
        let this = Self {
            host,
            owned,
            network,
            accelerator,
            conditions,
            stopped_with_host,
            watched: Mutex::default(),
            failed_looks: Mutex::default(),
            changed,
        };
        Ok((this, Changes(stream)))
    }

    fn guests(&self) -> &Arc<dyn Guests> {
        self.owned.guests()
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_looks(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.failed_looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the controller until the process ends.
pub async fn run(machines: Arc<Machines>, changes: Changes) {
    let own = watcher::Config::default().fields(&format!("spec.hostName={}", machines.host));
    let controller = run_on(
        Api::<Machine>::all(machines.base.client.clone()),
        own,
        UnboundedReceiverStream::new(changes.0),
        reconcile,
        |object, error, this: Arc<Machines>| retry(object, error, Arc::new(this.base.clone())),
        machines.clone(),
    );
    tokio::join!(controller, machines.keep_swept());
}

async fn reconcile(machine: Arc<Machine>, this: Arc<Machines>) -> Result<Action> {
    let api = Api::<Machine>::namespaced(this.base.client.clone(), &machine.namespace().unwrap_or_default());
    let Some(machine) = get(&api, &machine.name_any()).await? else { return Ok(Action::await_change()) };
    let volumes = ApiVolumes { base: &this.base, machine: &machine };
    let outcome = this.work.step(&machine, &volumes, this.base.now()).await?;
    if let Some(status) = outcome.status {
        write_status(&api, &machine, &status).await?;
    }
    match outcome.next {
        Next::AwaitChange => Ok(Action::await_change()),
        Next::Again(pause) => Ok(Action::requeue(pause)),
        Next::RemoveFinalizer => {
            remove_finalizer(&api, &machine, NODE_FINALIZER).await?;
            Ok(Action::await_change())
        }
    }
}

/// Finds a machine's volumes.
#[async_trait]
pub(crate) trait Volumes: Send + Sync {
    /// The volumes in the order of their devices, or the reason to wait.
    async fn uses(&self) -> Result<std::result::Result<Vec<VolumeUse>, String>>;
}

struct ApiVolumes<'a> {
    base: &'a Context,
    machine: &'a Machine,
}

#[async_trait]
impl Volumes for ApiVolumes<'_> {
    async fn uses(&self) -> Result<std::result::Result<Vec<VolumeUse>, String>> {
        let namespace = self.machine.namespace().unwrap_or_default();
        let api = Api::<Volume>::namespaced(self.base.client.clone(), &namespace);
        let mut uses = vec![];
        for wanted in &self.machine.spec.volumes {
            let volume = get(&api, &wanted.name).await?;
            let ready = volume
                .as_ref()
                .is_some_and(|v| v.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, READY)));
            match volume.and_then(|v| Some((v.uid()?, v.spec.size_bytes))) {
                Some((uid, size)) if ready => {
                    uses.push(VolumeUse { uid, is_boot: wanted.boot, size_bytes: Some(size) });
                }
                _ => return Ok(Err(format!("waits for volume \"{}\"", wanted.name))),
            }
        }
        Ok(Ok(uses))
    }
}
