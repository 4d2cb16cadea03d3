//! Machine -> guest.
//!
//! ```text
//!  Pending ─▶ Starting ─▶ Running ─▶ Stopped (the guest powered itself off) or Failed (its hypervisor ended)
//!     │ cannot be started     │ deleted: power button, then the hypervisor is told, then killed; every trace is removed
//!     ▼                       ▼
//!   Failed                  (gone)
//! ```
//! A guest whose end nobody saw (its shim was killed, the host restarted or was stopped in good order) is started again by
//! its host, with that reason; one that ended by itself is control's to start again.
//! Who writes what: this module writes Machine.status and the host's finalizer.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evroc_api::NODE_FINALIZER;
use evroc_api::compute::GUEST_READY;
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Machine, MachinePhase, MachineStatus, Volume};
use evroc_controller::{
    Context, Result, api_error, chain, controller, drive, get, remove_finalizer, retry, write_status,
};
use futures::StreamExt;
use ipnet::Ipv4Net;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::watcher;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::Draining;
use super::host::{Accelerator, NO_ACCELERATOR};
use crate::machine::{AcceleratorKind, Found, MachineConfig, MachineRunner, Nic, StopManner, VolumeUse};
use crate::net::network::{Network, PortSpec, TapState, VpcSpec};
use crate::net::vpc::HostNetwork;
use crate::seed::SeedInput;
use crate::shim::Exit;

/// How long a guest gets to power itself off. Too low loses its unwritten data; too high keeps a hung guest from ending.
const GRACE: Duration = Duration::from_secs(60);
/// How long one try to reach the guest's ssh server may take, and the pause between two.
const KNOCK: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(300));
/// The port that a guest with a system of its own answers on.
const SSH: u16 = 22;

/// Runs the machines of this host.
pub struct Machines {
    base: Context,
    host: String,
    runner: MachineRunner,
    network: HostNetwork,
    accelerator: watch::Receiver<Option<Accelerator>>,
    draining: Draining,
    /// A file per machine that was stopped with the host and is to run again.
    stopped_with_host: PathBuf,
    /// Machines whose guest has answered since this agent began, by uid.
    answered: Arc<Mutex<HashMap<String, bool>>>,
    ended: mpsc::UnboundedSender<()>,
}

/// Rings when something of a machine changed on this host, for [`run`].
pub struct Ended(mpsc::UnboundedReceiver<()>);

impl Machines {
    /// What runs machines. `state` is the node's folder.
    pub fn new(
        base: Context,
        host: String,
        state: &std::path::Path,
        runner: MachineRunner,
        network: HostNetwork,
        accelerator: watch::Receiver<Option<Accelerator>>,
        draining: Draining,
    ) -> std::io::Result<(Arc<Self>, Ended)> {
        let stopped_with_host = state.join("stopped-with-host");
        std::fs::create_dir_all(&stopped_with_host)?;
        let (ended, stream) = mpsc::unbounded_channel();
        let this = Self {
            base,
            host,
            runner,
            network,
            accelerator,
            draining,
            stopped_with_host,
            answered: Arc::default(),
            ended,
        };
        Ok((Arc::new(this), Ended(stream)))
    }

    /// What streams to machines need.
    pub fn runner(&self) -> &MachineRunner {
        &self.runner
    }

    /// Opens a TCP connection to a port of a machine.
    pub async fn connect(&self, uid: &str, port: u16) -> std::io::Result<crate::io::BoxDuplex> {
        let own = ListParams::default().fields(&format!("spec.hostName={}", self.host));
        let machines = Api::<Machine>::all(self.base.client.clone()).list(&own).await.map_err(std::io::Error::other)?;
        let machine = machines.items.into_iter().find(|m| m.uid().as_deref() == Some(uid));
        let machine = machine.ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::NotFound, format!("machine {uid} is not on this host"))
        })?;
        let address: Ipv4Addr = machine.spec.network.address.parse().map_err(std::io::Error::other)?;
        self.network.connect(&machine.spec.network.vpc_uid, SocketAddr::from((address, port))).await
    }

    /// Removes what is on this host of machines that no longer exist.
    pub async fn sweep(&self) -> Result<()> {
        let own = ListParams::default().fields(&format!("spec.hostName={}", self.host));
        let wanted =
            Api::<Machine>::all(self.base.client.clone()).list(&own).await.map_err(api_error("list machines"))?;
        let wanted: HashSet<String> = wanted.items.iter().filter_map(ResourceExt::uid).collect();
        match self.runner.list() {
            Ok(known) => {
                for uid in known.into_iter().filter(|uid| !wanted.contains(uid)) {
                    tracing::info!(uid, "removing a machine that is not wanted any more");
                    if let Err(error) = self.runner.remove(&uid).await {
                        tracing::warn!(uid, error = chain(&error), "cannot remove a machine");
                    }
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), "cannot list machines"),
        }
        for (vpc, machines) in self.network.ports().await {
            for uid in machines.into_iter().filter(|uid| !wanted.contains(uid)) {
                if let Err(error) = self.network.remove_port(&vpc, &uid).await {
                    tracing::warn!(uid, error = chain(&error), "cannot remove a network port");
                }
            }
        }
        Ok(())
    }

    /// Stops every guest of this host; the next start of the host runs them again. Says how many ended when asked, and how
    /// many had to be told otherwise.
    pub async fn stop_all(&self, grace: Duration) -> (u32, u32) {
        let known = match self.runner.list() {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot list machines");
                return (0, 0);
            }
        };
        let stops = known.into_iter().map(|uid| async move {
            if !matches!(self.runner.observe(&uid).await, Ok(Found::Running(_))) {
                return None;
            }
            if let Err(error) = std::fs::write(self.stopped_with_host.join(&uid), b"") {
                tracing::warn!(uid, %error, "a machine may not be started again by itself");
            }
            match self.runner.stop(&uid, grace).await {
                Ok(Some(stopped)) => Some(stopped.manner == StopManner::PoweredOff),
                Ok(None) => None,
                Err(error) => {
                    tracing::warn!(uid, error = chain(&error), "cannot stop a machine");
                    Some(false)
                }
            }
        });
        let outcomes = futures::future::join_all(stops).await;
        let count =
            |wanted: bool| u32::try_from(outcomes.iter().filter(|o| **o == Some(wanted)).count()).unwrap_or(u32::MAX);
        (count(true), count(false))
    }

    fn answered(&self) -> MutexGuard<'_, HashMap<String, bool>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the controller until the process ends.
pub async fn run(machines: Arc<Machines>, ended: Ended) {
    let own = watcher::Config::default().fields(&format!("spec.hostName={}", machines.host));
    let stream = controller(Api::<Machine>::all(machines.base.client.clone()), own)
        .reconcile_all_on(UnboundedReceiverStream::new(ended.0))
        .run(
            reconcile,
            |object, error, this: Arc<Machines>| retry(object, error, Arc::new(this.base.clone())),
            machines,
        );
    drive(stream.boxed()).await;
}

async fn reconcile(machine: Arc<Machine>, this: Arc<Machines>) -> Result<Action> {
    let api = Api::<Machine>::namespaced(this.base.client.clone(), &machine.namespace().unwrap_or_default());
    let Some(machine) = get(&api, &machine.name_any()).await? else { return Ok(Action::await_change()) };
    if this.draining.is_set() {
        return Ok(Action::await_change());
    }
    let uid = machine.uid().unwrap_or_default();
    if machine.metadata.deletion_timestamp.is_some() {
        return this.end(&api, &machine, &uid).await;
    }
    let found = match this.runner.observe(&uid).await {
        Ok(found) => found,
        Err(error) => return this.fail(&api, &machine, "CannotObserve", &chain(&error)).await,
    };
    let was = machine.status.as_ref().and_then(|s| s.phase);
    match found {
        Found::Running(running) => {
            // The network is made right with what the machine should have: an agent that was killed may have left it half done.
            match this.ensure_port(&machine, &uid).await {
                Ok(TapState::Present) => {}
                Ok(TapState::Absent) => {
                    tracing::warn!(machine = machine.name_any(), "the machine runs without its tap: it has no network");
                }
                Err(error) => {
                    tracing::warn!(machine = machine.name_any(), error, "cannot keep the machine's network port");
                }
            }
            this.watch(&machine, &uid, &running);
            this.report_running(&api, &machine, &uid, None).await
        }
        Found::Ended(exit) => match this.again(&uid, &exit) {
            Some(reason) => this.start(&api, &machine, &uid, Some(&reason)).await,
            None if matches!(was, Some(MachinePhase::Stopped | MachinePhase::Failed)) => Ok(Action::await_change()),
            None if exit.is_success() => {
                let verdict = Verdict::no("PoweredOff", "the guest powered itself off");
                this.report(&api, &machine, MachinePhase::Stopped, &verdict, |_| ()).await
            }
            None => this.fail(&api, &machine, "HypervisorEnded", &describe(&exit)).await,
        },
        Found::Absent if was == Some(MachinePhase::Failed) => Ok(Action::await_change()),
        Found::Absent => this.start(&api, &machine, &uid, None).await,
    }
}

fn describe(exit: &Exit) -> String {
    let last = exit.stderr_tail.trim().lines().next_back().map(|line| format!(": {line}")).unwrap_or_default();
    format!("the hypervisor {}{last}", exit.reason)
}

/// How often a machine looks whether the probe has come to an end.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

impl Machines {
    /// Why a machine that has ended is this host's to start again, if it is.
    fn again(&self, uid: &str, exit: &Exit) -> Option<String> {
        if self.stopped_with_host.join(uid).exists() {
            return Some("the host was stopped and started again".into());
        }
        (exit.code.is_none() && exit.signal.is_none() && exit.started_at.is_some()).then(|| exit.reason.clone())
    }

    async fn ensure_port(&self, machine: &Machine, uid: &str) -> std::result::Result<TapState, String> {
        let wanted = &machine.spec.network;
        let parse = |field: &str, text: &str| {
            text.parse::<Ipv4Addr>().map_err(|_| format!("spec.network.{field}: {text:?} is not an address"))
        };
        let (address, gateway) = (parse("address", &wanted.address)?, parse("gateway", &wanted.gateway)?);
        let subnet = Ipv4Net::new(gateway, wanted.prefix_length)
            .map_err(|error| format!("spec.network.prefixLength: {error}"))?
            .trunc();
        let mac = wanted.mac.parse().map_err(|error| format!("spec.network.mac: {error}"))?;
        let vpc = VpcSpec { uid: wanted.vpc_uid.clone(), subnet, gateway };
        let port = PortSpec { machine_uid: uid.to_owned(), mac, address, hostname: machine.spec.hostname.clone() };
        self.network.ensure_port(&vpc, &port).await.map_err(|error| chain(&error))
    }

    /// Starts the machine, or reports why it cannot be. `reason` says why it is started again.
    async fn start(&self, api: &Api<Machine>, machine: &Machine, uid: &str, reason: Option<&str>) -> Result<Action> {
        let probed = self.accelerator.borrow().clone();
        let accelerator = match probed {
            Some(found) if found.name != NO_ACCELERATOR => found,
            found => {
                let why = match found {
                    Some(found) => Verdict::no("CannotRunGuests", format!("host {}: {}", self.host, found.reason)),
                    None => {
                        Verdict::no("Probing", "a probe guest is being booted to find out how guests run on this host")
                    }
                };
                self.report(api, machine, MachinePhase::Pending, &why, |_| ()).await?;
                return Ok(Action::requeue(PROBE_PAUSE));
            }
        };
        let volumes = match self.volumes(machine).await? {
            Ok(volumes) => volumes,
            Err(waits) => {
                self.report(api, machine, MachinePhase::Pending, &Verdict::no("WaitingForVolume", waits), |_| ())
                    .await?;
                return Ok(Action::requeue(Duration::from_secs(1)));
            }
        };
        let config = MachineConfig {
            uid: uid.to_owned(),
            name: machine.name_any(),
            epoch: machine.spec.epoch,
            vcpus: machine.spec.vcpus,
            memory_bytes: machine.spec.memory_bytes,
            volumes,
            seed: SeedInput {
                instance_id: machine.spec.virtual_machine_uid.clone(),
                hostname: machine.spec.hostname.clone(),
                authorized_keys: machine.spec.authorized_keys.clone(),
                user_data: machine.spec.user_data.clone(),
            },
            accelerator: if accelerator.name == "kvm" { AcceleratorKind::Kvm } else { AcceleratorKind::Tcg },
        };
        let started = match self.ensure_port(machine, uid).await {
            Ok(_) => match self.network.open_tap(&machine.spec.network.vpc_uid, uid).await {
                Ok(tap) => {
                    let nic = Nic { tap, mac: machine.spec.network.mac.clone(), mtu: None };
                    self.runner.start(&config, Some(nic)).await.map_err(|error| chain(&error))
                }
                Err(error) => Err(chain(&error)),
            },
            Err(error) => Err(error),
        };
        match started {
            Ok(running) => {
                if let Some(reason) = reason {
                    tracing::info!(machine = machine.name_any(), reason, "machine was started again");
                }
                // What is not there need not be removed.
                let _ = std::fs::remove_file(self.stopped_with_host.join(uid));
                self.answered().remove(uid);
                self.watch(machine, uid, &running);
                self.report_running(api, machine, uid, Some((reason, &accelerator))).await
            }
            Err(error) => self.fail(api, machine, "CannotStart", &error).await,
        }
    }

    /// The machine's volumes by uid, or what they wait for.
    async fn volumes(&self, machine: &Machine) -> Result<std::result::Result<Vec<VolumeUse>, String>> {
        let api = Api::<Volume>::namespaced(self.base.client.clone(), &machine.namespace().unwrap_or_default());
        let mut uses = vec![];
        for wanted in &machine.spec.volumes {
            let volume = get(&api, &wanted.name).await?;
            let ready = volume
                .as_ref()
                .is_some_and(|v| v.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, READY)));
            match volume.and_then(|v| v.uid()) {
                Some(uid) if ready => uses.push(VolumeUse { uid, is_boot: wanted.boot }),
                _ => return Ok(Err(format!("waits for volume \"{}\"", wanted.name))),
            }
        }
        Ok(Ok(uses))
    }

    /// Reconciles again when the guest's ssh server answers for the first time, and when the machine ends.
    fn watch(&self, machine: &Machine, uid: &str, running: &crate::machine::Machine) {
        if self.answered().contains_key(uid) {
            return;
        }
        self.answered().insert(uid.to_owned(), false);
        let (shim, ended) = (running.shim().clone(), self.ended.clone());
        tokio::spawn(async move {
            if let Err(error) = shim.wait().await {
                tracing::debug!(error = chain(&error), "lost sight of a machine");
            }
            // Nobody listens any more when the agent ends.
            let _ = ended.send(());
        });
        let Ok(address) = machine.spec.network.address.parse::<Ipv4Addr>() else { return };
        let (network, vpc, uid) = (self.network.clone(), machine.spec.network.vpc_uid.clone(), uid.to_owned());
        let (runner, ended) = (self.runner.clone(), self.ended.clone());
        let answered = self.answered.clone();
        tokio::spawn(async move {
            loop {
                let knock = network.connect(&vpc, SocketAddr::from((address, SSH)));
                if matches!(tokio::time::timeout(KNOCK.0, knock).await, Ok(Ok(_))) {
                    answered.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, true);
                    let _ = ended.send(());
                    return;
                }
                if !matches!(runner.observe(&uid).await, Ok(Found::Running(_))) {
                    return;
                }
                tokio::time::sleep(KNOCK.1).await;
            }
        });
    }

    /// Reports a machine that runs; `started` tells what is known only of one that was started just now.
    async fn report_running(
        &self,
        api: &Api<Machine>,
        machine: &Machine,
        uid: &str,
        started: Option<(Option<&str>, &Accelerator)>,
    ) -> Result<Action> {
        let is_up = self.answered().get(uid) == Some(&true);
        let now = self.base.now();
        let message = match started {
            Some((Some(reason), _)) => format!("the hypervisor runs the guest; it was started again: {reason}"),
            Some((None, _)) => "the hypervisor runs the guest".into(),
            None => running_message(machine),
        };
        self.report(api, machine, MachinePhase::Running, &Verdict::yes("Running", message), |status| {
            if let Some((reason, accelerator)) = started {
                status.started_at = Some(Time(now));
                status.accelerator = Some(accelerator.name.clone());
                status.restarts += i32::from(reason.is_some());
            }
            let guest = match is_up {
                true => Verdict::yes("SshAnswers", "the guest's ssh server answers"),
                false => Verdict::no("Booting", "the guest's ssh server does not answer yet"),
            };
            conditions::set(&mut status.conditions, GUEST_READY, &guest, None, now);
        })
        .await
    }

    async fn fail(&self, api: &Api<Machine>, machine: &Machine, reason: &str, message: &str) -> Result<Action> {
        tracing::warn!(machine = machine.name_any(), reason, message, "machine failed");
        self.report(api, machine, MachinePhase::Failed, &Verdict::no(reason, message), |_| ()).await
    }

    async fn report(
        &self,
        api: &Api<Machine>,
        machine: &Machine,
        phase: MachinePhase,
        ready: &Verdict,
        more: impl FnOnce(&mut MachineStatus),
    ) -> Result<Action> {
        let mut status = machine.status.clone().unwrap_or_default();
        status.phase = Some(phase);
        status.observed_epoch = machine.spec.epoch;
        conditions::set(&mut status.conditions, READY, ready, machine.metadata.generation, self.base.now());
        if phase != MachinePhase::Running {
            let off = Verdict::no("NotRunning", "the hypervisor does not run the guest");
            conditions::set(&mut status.conditions, GUEST_READY, &off, None, self.base.now());
        }
        more(&mut status);
        write_status(api, machine, &status).await?;
        Ok(Action::await_change())
    }

    /// Stops the guest in good order and removes every trace of it.
    async fn end(&self, api: &Api<Machine>, machine: &Machine, uid: &str) -> Result<Action> {
        if !machine.finalizers().iter().any(|f| f == NODE_FINALIZER) {
            return Ok(Action::await_change());
        }
        if machine.status.as_ref().and_then(|s| s.phase) == Some(MachinePhase::Running) {
            let stopping = Verdict::no("Stopping", "the guest was asked to power off");
            self.report(api, machine, MachinePhase::Stopping, &stopping, |_| ()).await?;
            return Ok(Action::requeue(Duration::ZERO));
        }
        let ended = async {
            self.runner.stop(uid, GRACE).await.map_err(|error| chain(&error))?;
            self.runner.remove(uid).await.map_err(|error| chain(&error))?;
            self.network.remove_port(&machine.spec.network.vpc_uid, uid).await.map_err(|error| chain(&error))
        };
        if let Err(error) = ended.await {
            tracing::warn!(machine = machine.name_any(), error, "cannot remove a machine, will be tried again");
            return Ok(Action::requeue(Duration::from_secs(1)));
        }
        self.answered().remove(uid);
        let _ = std::fs::remove_file(self.stopped_with_host.join(uid));
        remove_finalizer(api, machine, NODE_FINALIZER).await?;
        Ok(Action::await_change())
    }
}

/// What was said of a running machine stays true until it is started again.
fn running_message(machine: &Machine) -> String {
    let before =
        machine.status.as_ref().and_then(|s| conditions::get(&s.conditions, READY)).filter(|c| c.status == "True");
    before.map_or_else(|| "the hypervisor runs the guest".into(), |c| c.message.clone())
}
