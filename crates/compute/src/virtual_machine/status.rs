//! Computes the status of a virtual machine: pure.

use evroc_api::compute::{
    AttachedDiskStatus, GUEST_READY, Hardware, Placement, VirtualMachineStatus, VirtualMachineStatusType as State, zone,
};
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Machine, MachinePhase};
use evroc_api::{COMPUTE_FINALIZER, deletion};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::binding::{Next, next};
use super::observe::Observed;
use super::plan::epoch;
use super::restart::restarts;

/// The status that the observed state amounts to.
pub fn status(observed: &Observed, now: Timestamp) -> VirtualMachineStatus {
    let mut status = observed.vm.status.clone().unwrap_or_default();
    let generation = observed.vm.metadata.generation;
    let (state, message) = state(observed);
    let ready = match state {
        State::Running => Verdict::yes("Ready", message),
        State::Unknown => Verdict::unknown("Unknown", message),
        _ => Verdict::no(&format!("{state:?}"), message),
    };
    conditions::set(&mut status.conditions, READY, &ready, generation, now);
    conditions::set(&mut status.conditions, GUEST_READY, &guest(observed, state), generation, now);
    status.virtual_machine_status = Some(state);
    status.attached_disks = attached(observed);
    let wanted = zone(observed.vm.spec.placement.as_ref()).map(str::to_owned);
    if let Some(zone) = observed.zone.clone().or(wanted) {
        status.placement = Some(Placement { zone: Some(zone) });
    }
    status.epoch = epoch(observed);
    if status.hardware.is_none() {
        status.hardware = default_hardware(observed);
    }
    status.restarts = restarts(observed).filter(|count| *count > 0);
    status
}

/// The hardware of new guests on the host that this one is placed on; chosen once, before the first machine is created.
fn default_hardware(observed: &Observed) -> Option<Hardware> {
    let Ok(Next::Start(host, _)) = next(observed) else { return None };
    Some(Hardware { machine_type: host.machine_type.clone()?, cpu_model: host.cpu_model.clone()? })
}

/// Whether the reason why a virtual machine is not ready is a failure and not a step on its way.
pub fn is_failure(reason: &str) -> bool {
    const FAILURES: [State; 7] = [
        State::ProvisioningFailed,
        State::Paused,
        State::CrashLoopBackOff,
        State::Unknown,
        State::ErrorUnschedulable,
        State::ErrorPvcNotFound,
        State::DataVolumeError,
    ];
    FAILURES.iter().any(|state| format!("{state:?}") == reason)
}

fn state(observed: &Observed) -> (State, String) {
    let deleted = observed.vm.metadata.deletion_timestamp.is_some();
    let Some(machine) = observed.machine() else {
        return match (deleted, observed.vm.spec.running) {
            (true, _) => (State::Deleting, deleting(observed)),
            (false, false) => (State::Stopped, "spec.running is false".into()),
            (false, true) => match next(observed) {
                Err(block) => (block.state, block.message),
                Ok(Next::Release(volumes)) => {
                    let names: Vec<String> =
                        volumes.iter().map(|volume| format!("Disk \"{}\"", volume.name_any())).collect();
                    let message = format!(
                        "{} got a host that has no room for the VM any more, and gets another",
                        names.join(", ")
                    );
                    (State::WaitingForVolumeBinding, message)
                }
                Ok(Next::Bind(disks)) => {
                    let names: Vec<String> = disks.iter().map(|(disk, _)| format!("Disk \"{}\"", disk.name)).collect();
                    let host = disks.first().map(|(_, spec)| spec.host_name.as_str()).unwrap_or_default();
                    (
                        State::WaitingForVolumeBinding,
                        format!("waits for {}: is being made on host {host}", names.join(", ")),
                    )
                }
                Ok(Next::Start(host, _)) => {
                    (State::Provisioning, format!("the VM is being placed on host {}", host.name))
                }
            },
        };
    };
    let stopping = machine.metadata.deletion_timestamp.is_some();
    let phase = machine.status.as_ref().and_then(|s| s.phase);
    match phase {
        _ if deleted => {
            let host = &machine.spec.host_name;
            (State::Terminating, format!("the guest is being stopped, then the VM is deleted: waits for host {host}"))
        }
        _ if !observed.vm.spec.running => (State::Stopping, "the guest was asked to power off".into()),
        _ if stopping => (State::Starting, "the VM is being started again".into()),
        None | Some(MachinePhase::Pending) => (State::Provisioning, message(machine, "the host is preparing the VM")),
        Some(MachinePhase::Starting) => (State::Starting, message(machine, "the hypervisor is being started")),
        Some(MachinePhase::Running) => (State::Running, message(machine, "the hypervisor runs the guest")),
        Some(MachinePhase::Paused) => (State::Paused, message(machine, "the hypervisor has paused the guest")),
        Some(MachinePhase::Unknown) => (State::Unknown, message(machine, "the host cannot find out how the guest is")),
        Some(MachinePhase::Stopping) => (State::Stopping, message(machine, "the guest was asked to power off")),
        Some(MachinePhase::Stopped) => {
            (State::CrashLoopBackOff, message(machine, "the guest powered off and is started again"))
        }
        Some(MachinePhase::Failed) => {
            (State::CrashLoopBackOff, message(machine, "the hypervisor ended and is started again"))
        }
    }
}

/// The guest has ended; who else keeps the VM.
fn deleting(observed: &Observed) -> String {
    match deletion::waits_for(&observed.vm.metadata, &[COMPUTE_FINALIZER], &[]) {
        Some(blocker) => format!("the VM is being deleted: {blocker}"),
        None => "the VM is being deleted".into(),
    }
}

/// Returns the host's report on the machine, or else `otherwise`.
fn message(machine: &Machine, otherwise: &str) -> String {
    let ready = machine.status.as_ref().and_then(|s| conditions::get(&s.conditions, READY));
    ready.map(|c| c.message.clone()).filter(|m| !m.is_empty()).unwrap_or_else(|| otherwise.into())
}

fn guest(observed: &Observed, state: State) -> Verdict {
    let reported =
        observed.machine().and_then(|m| m.status.as_ref()).and_then(|s| conditions::get(&s.conditions, GUEST_READY));
    match (state, reported) {
        (State::Running, Some(it)) if it.status == "True" => Verdict::yes(&it.reason, it.message.clone()),
        (State::Running, Some(it)) => Verdict::no(&it.reason, it.message.clone()),
        (State::Running, None) => Verdict::no("Booting", "the host has not reported on the guest's system yet"),
        (State::Paused, _) => Verdict::no("Paused", "the hypervisor has paused the guest"),
        (State::Unknown, _) => Verdict::unknown("Unknown", "the host cannot find out how the guest is"),
        _ => Verdict::no("NotRunning", "the hypervisor does not run the guest"),
    }
}

/// The firmware's disk is `/dev/vda`, the guest's setup is on `/dev/vdb`, the others follow.
fn attached(observed: &Observed) -> Vec<AttachedDiskStatus> {
    let volumes = observed.machine().into_iter().flat_map(|m| &m.spec.volumes).enumerate();
    volumes
        .map(|(index, volume)| {
            let letter = if index == 0 { 'a' } else { char::from(b'b' + u8::try_from(index).unwrap_or(24)) };
            AttachedDiskStatus { name: volume.name.clone(), device: format!("/dev/vd{letter}") }
        })
        .collect()
}
