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
mod end;
mod phase;
pub mod ready;
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
use evroc_api::infra::{Machine, MachinePhase, MachineVolume, Volume};
use evroc_controller::{Context, Result, chain, get, pauses, remove_finalizer, retry, run_on, write_status};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::host::{Accelerator, HostConditions};
use crate::drain_flag::DrainFlag;
use crate::io::BoxDuplex;
use crate::machine::VolumeUse;
use crate::machine::guests::{Guests, ObservedMachine};
use crate::machine::owner::OwnedMachines;
use crate::metrics;
use crate::net::network::Network;
use ready::Watched;
use step::Next;

/// Runs the machines of this host.
pub struct Machines {
    base: Context,
    host: String,
    work: Work,
    /// The volumes of this host, as of a moment ago.
    volumes: Store<Volume>,
    /// The writer of [`Self::volumes`], until [`run`] takes it.
    fill: Mutex<Option<reflector::store::Writer<Volume>>>,
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
        let (volumes, fill) = reflector::store();
        Ok((Arc::new(Self { base, host, work, volumes, fill: Mutex::new(Some(fill)) }), changes))
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

    /// Whether a machine runs, is watched, and is reported so: a look at it may use what is known of it.
    async fn runs_as_reported(&self, machine: &Machine) -> bool {
        let phase = machine.status.as_ref().and_then(|status| status.phase);
        let uid = machine.uid().unwrap_or_default();
        machine.metadata.deletion_timestamp.is_none()
            && phase == Some(MachinePhase::Running)
            && matches!(self.guests().observe(&uid).await, Ok(ObservedMachine::Running(_)))
    }

    /// Wakes the machines that wait for this volume.
    fn wake_waiting(&self, machines: &Store<Machine>, volume: &Volume) {
        let name = volume.name_any();
        let waits = |machine: &Machine| {
            let phase = machine.status.as_ref().and_then(|status| status.phase);
            matches!(phase, None | Some(MachinePhase::Pending))
                && machine.namespace() == volume.namespace()
                && machine.spec.volumes.iter().any(|used| used.name == name)
        };
        for machine in machines.state().iter().filter(|machine| waits(machine)) {
            // Without a receiver nothing is reconciled any more.
            drop(self.changed.send(ObjectRef::from_obj(&**machine)));
        }
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
    let (store, writer) = reflector::store();
    let controller = run_on(
        Api::<Machine>::all(machines.base.client.clone()),
        own,
        UnboundedReceiverStream::new(changes.0),
        reconcile,
        |object, error, this: Arc<Machines>| retry(object, error, Arc::new(this.base.clone())),
        machines.clone(),
        (store.clone(), writer),
    );
    let _followed = metrics::follow_machines(store.clone());
    tokio::join!(controller, machines.keep_swept(), machines.follow_volumes(&store));
}

async fn reconcile(machine: Arc<Machine>, this: Arc<Machines>) -> Result<Action> {
    let api = Api::<Machine>::namespaced(this.base.client.clone(), &machine.namespace().unwrap_or_default());
    // A machine in good order costs no request, however often it is looked at. What the watch has not brought yet fails the write.
    let machine = match this.work.runs_as_reported(&machine).await {
        true => machine,
        false => match get(&api, &machine.name_any()).await? {
            Some(machine) => Arc::new(machine),
            None => return Ok(Action::await_change()),
        },
    };
    let volumes = KnownVolumes { base: &this.base, machine: &machine, known: &this.volumes };
    let outcome = this.work.step(&machine, &volumes, this.base.now()).await?;
    if let Some(status) = outcome.status.filter(|status| machine.status.as_ref() != Some(status)) {
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

impl Machines {
    /// Keeps the volumes of this host up to date, and wakes the machines that wait for one.
    async fn follow_volumes(&self, machines: &Store<Machine>) {
        let Some(fill) = self.fill.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let own = watcher::Config::default().fields(&format!("spec.hostName={}", self.host));
        let volumes = watcher(Api::<Volume>::all(self.base.client.clone()), own).backoff(pauses());
        let mut volumes = volumes.reflect(fill).applied_objects().boxed();
        while let Some(change) = volumes.next().await {
            match change {
                Ok(volume) => self.work.wake_waiting(machines, &volume),
                Err(error) => tracing::debug!(error = chain(&error), "watching volumes failed, will be tried again"),
            }
        }
    }
}

/// The volumes of the watch, and those of the API where the watch has none.
struct KnownVolumes<'a> {
    base: &'a Context,
    machine: &'a Machine,
    known: &'a Store<Volume>,
}

#[async_trait]
impl Volumes for KnownVolumes<'_> {
    async fn uses(&self) -> Result<std::result::Result<Vec<VolumeUse>, String>> {
        let namespace = self.machine.namespace().unwrap_or_default();
        let mut uses = vec![];
        for wanted in &self.machine.spec.volumes {
            let known = self.known.get(&ObjectRef::new(&wanted.name).within(&namespace));
            let found = match known.and_then(|volume| volume_use(&volume, wanted)) {
                Some(found) => Some(found),
                None => {
                    let api = Api::<Volume>::namespaced(self.base.client.clone(), &namespace);
                    get(&api, &wanted.name).await?.and_then(|volume| volume_use(&volume, wanted))
                }
            };
            match found {
                Some(found) => uses.push(found),
                None => return Ok(Err(format!("waits for volume \"{}\"", wanted.name))),
            }
        }
        Ok(Ok(uses))
    }
}

/// A volume that is ready, as a machine uses it. A provisional one may still be removed, so that nothing is written to it.
fn volume_use(volume: &Volume, wanted: &MachineVolume) -> Option<VolumeUse> {
    let is_ready = volume.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, READY));
    let is_kept = !volume.spec.provisional;
    let uid =
        volume.uid().filter(|uid| is_ready && is_kept && wanted.uid.as_ref().is_none_or(|wanted| wanted == uid))?;
    let disk_uid = wanted.disk_uid.clone();
    Some(VolumeUse { uid, disk_uid, is_boot: wanted.boot, size_bytes: Some(volume.spec.size_bytes) })
}

#[cfg(test)]
mod volume_tests {
    use super::*;

    #[test]
    fn a_machine_waits_for_a_volume_that_may_still_be_removed() {
        let volume = |provisional: bool, ready: &str| -> Volume {
            let condition = serde_json::json!({"type": "Ready", "status": ready, "reason": "R", "message": "",
                "lastTransitionTime": "1970-01-01T00:00:00Z"});
            serde_json::from_value(serde_json::json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Volume",
                "metadata": {"name": "d", "uid": "u"}, "status": {"conditions": [condition]},
                "spec": {"hostName": "h", "sizeBytes": 1, "provisional": provisional}}))
            .unwrap()
        };
        let wanted = MachineVolume { name: "d".into(), uid: Some("u".into()), ..MachineVolume::default() };
        assert!(volume_use(&volume(false, "True"), &wanted).is_some());
        assert!(volume_use(&volume(true, "True"), &wanted).is_none());
        assert!(volume_use(&volume(false, "False"), &wanted).is_none());
        let other = MachineVolume { uid: Some("v".into()), ..wanted };
        assert!(volume_use(&volume(false, "True"), &other).is_none(), "one of the same name that came later");
    }
}
