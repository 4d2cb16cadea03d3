//! One reconciliation of a machine: observe, report, and request missing changes from its owner.

use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::GUEST_READY;
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Machine, MachinePhase, MachineStatus};
use evroc_controller::{Result, chain};
use evroc_vmm::GuestState;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::ready::{Watched, ssh_greets};
use super::{Volumes, Work, phase};
use crate::agent::host::Topic;
use crate::machine::MachineError;
use crate::machine::guests::{ObservedMachine, Run};
use crate::machine::owner::Order;
use crate::net::network::TapState;
use crate::shim::Exit;

/// How often a running machine is observed although no event came. Longer shows changes without events later.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A guest that waits for room on the host's disk is resumed within this time.
const RESUME_AGAIN: Duration = Duration::from_secs(5);
/// After something failed that may work the next time.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The pause after the first look that failed, doubled with each up to [`LOOK_AGAIN`].
const FIRST_LOOK_PAUSE: Duration = Duration::from_millis(250);
/// How many observations in a row must fail before the status reports it. Fewer reports a host that is out of descriptors for a
/// moment; more hides a lasting fault.
const FAILURES_TO_REPORT: u32 = 3;

/// The result of a reconciliation.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// To be written, if anything is known.
    pub(crate) status: Option<MachineStatus>,
    /// The next step.
    pub(crate) next: Next,
}

/// The next step after a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until something changes.
    AwaitChange,
    /// Another reconciliation.
    Again(Duration),
    /// Nothing of the machine is left on this host.
    RemoveFinalizer,
}

impl Outcome {
    pub(super) fn next(next: Next) -> Self {
        Self { status: None, next }
    }

    pub(super) fn report(status: MachineStatus, next: Next) -> Self {
        Self { status: Some(status), next }
    }
}

impl Work {
    /// Observes a machine and makes it match its object.
    pub(crate) async fn step(&self, machine: &Machine, volumes: &dyn Volumes, now: Timestamp) -> Result<Outcome> {
        if self.owned.is_draining() {
            return Ok(Outcome::next(Next::AwaitChange));
        }
        let uid = machine.uid().unwrap_or_default();
        if machine.metadata.deletion_timestamp.is_some() {
            return Ok(self.end(machine, &uid, now).await);
        }
        let was = phase_of(machine);
        match self.guests().observe(&uid).await {
            Err(error) => Ok(self.cannot_look(machine, &uid, &error, now)),
            Ok(observed) => {
                self.conditions.clear(Topic::RecordsReadable, &part(&uid));
                if !matches!(observed, ObservedMachine::Running(_)) {
                    self.failed_looks().remove(&uid);
                }
                match observed {
                    ObservedMachine::Running(run) => self.running(machine, &uid, &run, volumes, now).await,
                    ObservedMachine::Orphaned(reason) => Ok(self.end_orphan(machine, &uid, &reason).await),
                    ObservedMachine::Ended(exit) => match self.again(&uid, &exit) {
                        Some(reason) => self.start(machine, &uid, Some(&reason), volumes, now).await,
                        None if matches!(was, Some(MachinePhase::Stopped | MachinePhase::Failed)) => {
                            Ok(Outcome::next(Next::AwaitChange))
                        }
                        None => Ok(self.ended(machine, &uid, &exit, now)),
                    },
                    ObservedMachine::Absent if was == Some(MachinePhase::Failed) => {
                        Ok(Outcome::next(Next::AwaitChange))
                    }
                    ObservedMachine::Absent => self.start(machine, &uid, None, volumes, now).await,
                }
            }
        }
    }

    /// Returns the reason why this host starts an ended machine again, if it does.
    fn again(&self, uid: &str, exit: &Exit) -> Option<String> {
        if self.stopped_with_host.join(uid).exists() {
            return Some("the host was stopped and started again".into());
        }
        (exit.code.is_none() && exit.signal.is_none() && exit.started_at.is_some()).then(|| exit.reason.clone())
    }

    fn ended(&self, machine: &Machine, uid: &str, exit: &Exit, now: Timestamp) -> Outcome {
        self.watched().remove(uid);
        let outside = evroc_vmm::qemu::ended_from_outside(&exit.stderr_tail);
        if let Some(line) = outside.filter(|_| exit.is_success()) {
            // The guest did not power itself off: it is started again as after any other end of its hypervisor.
            return self.failed(machine, "HypervisorEnded", &format!("the hypervisor was ended: {line}"), now);
        }
        if exit.is_success() {
            let verdict = Verdict::no("PoweredOff", "the guest powered itself off");
            return Outcome::report(status(machine, MachinePhase::Stopped, &verdict, now), Next::AwaitChange);
        }
        let last = exit.stderr_tail.trim().lines().next_back().map(|line| format!(": {line}")).unwrap_or_default();
        self.failed(machine, "HypervisorEnded", &format!("the hypervisor {}{last}", exit.reason), now)
    }

    pub(super) fn failed(&self, machine: &Machine, reason: &str, message: &str, now: Timestamp) -> Outcome {
        tracing::warn!(machine = machine.name_any(), reason, message, "machine failed");
        let verdict = Verdict::no(reason, message);
        Outcome::report(status(machine, MachinePhase::Failed, &verdict, now), Next::AwaitChange)
    }

    /// Nothing is known, and nothing is done: the guest may still be running.
    pub(super) fn cannot_look(&self, machine: &Machine, uid: &str, error: &MachineError, now: Timestamp) -> Outcome {
        let text = chain(error);
        if matches!(error, MachineError::Record { .. }) {
            self.conditions.set(Topic::RecordsReadable, part(uid), Verdict::no("RecordUnreadable", text.clone()));
        }
        self.unknown(machine, uid, "CannotObserve", &text, now)
    }

    /// Reports that it cannot be found out how the machine is, once that has lasted.
    fn unknown(&self, machine: &Machine, uid: &str, reason: &str, message: &str, now: Timestamp) -> Outcome {
        let failures = {
            let mut looks = self.failed_looks();
            let failures = looks.entry(uid.to_owned()).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        let pause = (FIRST_LOOK_PAUSE * (1 << failures.min(10))).min(LOOK_AGAIN);
        if failures < FAILURES_TO_REPORT {
            return Outcome::next(Next::Again(pause));
        }
        if failures == FAILURES_TO_REPORT {
            tracing::warn!(machine = machine.name_any(), uid, reason, message, "cannot find out how a machine is");
        }
        let verdict = Verdict::unknown(reason, message);
        Outcome::report(status(machine, MachinePhase::Unknown, &verdict, now), Next::Again(pause))
    }

    async fn running(
        &self,
        machine: &Machine,
        uid: &str,
        run: &Run,
        volumes: &dyn Volumes,
        now: Timestamp,
    ) -> Result<Outcome> {
        // The network is brought to the machine's spec: an agent that was killed may have left it half done.
        let fault = match self.ensure_port(machine, uid).await {
            Ok(TapState::Present) => None,
            Ok(TapState::Absent) => Some("the guest runs, but its network device is absent from its VPC".to_owned()),
            Err(error) => Some(format!("the guest's network cannot be kept: {error}")),
        };
        if let Some(fault) = &fault {
            tracing::warn!(machine = machine.name_any(), uid, fault, "a machine that runs has no network");
        }
        self.watch(machine, uid, run).await;
        let mut found = match self.guests().state(uid).await {
            Ok(found) => found,
            // Its end came in between: look again.
            Err(MachineError::NotRunning { .. }) => return Ok(Outcome::next(Next::Again(Duration::ZERO))),
            Err(error) => return Ok(self.unknown(machine, uid, "HypervisorDoesNotAnswer", &chain(&error), now)),
        };
        self.failed_looks().remove(uid);
        if matches!(found, GuestState::DiskError { .. }) {
            found = self.resume(machine, uid, found).await;
        }
        if found == GuestState::Running {
            self.change_devices(machine, uid, volumes).await?;
        }
        let (phase, mut ready) = phase::of_state(found);
        if let (MachinePhase::Running, Some(fault)) = (phase, &fault) {
            ready = Verdict::no("NetworkLost", fault.clone());
        } else if let (MachinePhase::Running, Some(before)) = (phase, ready_of(machine)) {
            // The reason of the last start stays in the message until the next.
            ready.message = before;
        }
        let next = match found {
            GuestState::DiskError { .. } => RESUME_AGAIN,
            GuestState::ShutDown => TRY_AGAIN,
            _ => LOOK_AGAIN,
        };
        let mut status = status(machine, phase, &ready, now);
        status.started_at = Timestamp::from_second(run.started_at.as_second()).ok().map(Time);
        if phase == MachinePhase::Running
            && let Some(watched) = self.watched().get(uid)
        {
            conditions::set(&mut status.conditions, GUEST_READY, &watched.readiness().verdict(), None, now);
        }
        Ok(Outcome::report(status, Next::Again(next)))
    }

    /// Resumes a guest that a full disk had paused; returns its state afterwards.
    async fn resume(&self, machine: &Machine, uid: &str, found: GuestState) -> GuestState {
        if let Err(error) = self.owned.ask(uid, Order::Resume).await {
            tracing::warn!(machine = machine.name_any(), uid, error = chain(&error), "cannot resume a guest");
            return found;
        }
        self.guests().state(uid).await.unwrap_or(found)
    }

    async fn change_devices(&self, machine: &Machine, uid: &str, volumes: &dyn Volumes) -> Result<()> {
        let Ok(uses) = volumes.uses().await? else { return Ok(()) };
        let wanted = self.config(machine, uid, uses, crate::machine::AcceleratorKind::Tcg).wanted_disks();
        if let Err(error) = self.owned.ask(uid, Order::Devices(wanted)).await {
            let error = chain(&error);
            tracing::warn!(machine = machine.name_any(), uid, error, "cannot change the devices of a guest");
        }
        Ok(())
    }

    /// Watches this run, unless it is watched already.
    pub(super) async fn watch(&self, machine: &Machine, uid: &str, run: &Run) {
        if self.watched().get(uid).is_some_and(|watched| watched.run == run.id) {
            return;
        }
        let changes = match self.guests().changes(uid).await {
            Ok(changes) => changes,
            Err(error) => {
                tracing::debug!(machine = machine.name_any(), uid, error = chain(&error), "cannot watch a machine");
                return;
            }
        };
        let (network, vpc) = (self.network.clone(), Arc::<str>::from(machine.spec.network.vpc_uid.as_str()));
        let address = machine.spec.network.address.parse().ok();
        let (changed, object) = (self.changed.clone(), ObjectRef::from_obj(machine));
        let greets = move || {
            let (network, vpc) = (network.clone(), vpc.clone());
            async move {
                match address {
                    Some(address) => ssh_greets(network.as_ref(), &vpc, address).await,
                    None => false,
                }
            }
        };
        // The receiver is dropped when the agent ends.
        let ring = move || drop(changed.send(object.clone()));
        self.watched().insert(uid.to_owned(), Watched::start(run.id, changes, greets, ring));
    }
}

/// The name of a machine among the parts of the host's conditions.
pub(super) fn part(uid: &str) -> String {
    format!("machine {uid}")
}

/// The message of a Ready condition that is True.
fn ready_of(machine: &Machine) -> Option<String> {
    let ready = conditions::get(&machine.status.as_ref()?.conditions, READY)?;
    (ready.status == "True").then(|| ready.message.clone())
}

pub(super) fn phase_of(machine: &Machine) -> Option<MachinePhase> {
    machine.status.as_ref().and_then(|status| status.phase)
}

/// The status with another phase and Ready condition. Only a guest that runs can be ready; for one that does, the caller says whether.
pub(super) fn status(machine: &Machine, phase: MachinePhase, ready: &Verdict, now: Timestamp) -> MachineStatus {
    let mut status = machine.status.clone().unwrap_or_default();
    status.phase = Some(phase);
    status.observed_epoch = machine.spec.epoch;
    conditions::set(&mut status.conditions, READY, ready, machine.metadata.generation, now);
    let guest = match phase {
        MachinePhase::Running => None,
        MachinePhase::Unknown => Some(Verdict::unknown("Unknown", "the host cannot find out how the guest is")),
        MachinePhase::Paused => Some(Verdict::no("Paused", "the hypervisor does not execute the guest")),
        _ => Some(Verdict::no("NotRunning", "the hypervisor does not run the guest")),
    };
    if let Some(guest) = guest {
        conditions::set(&mut status.conditions, GUEST_READY, &guest, None, now);
    }
    status
}
