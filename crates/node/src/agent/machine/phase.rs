//! The report on a machine whose hypervisor runs: pure.

use evroc_api::conditions::Verdict;
use evroc_api::infra::MachinePhase;
use evroc_vmm::GuestState;

/// Returns the phase and the Ready condition for the state of the guest in the hypervisor.
pub fn of_state(state: GuestState) -> (MachinePhase, Verdict) {
    use MachinePhase::{Paused, Running, Stopping};
    let paused = |reason, message| (Paused, Verdict::no(reason, message));
    match state {
        GuestState::Running => (Running, Verdict::yes("Running", "the hypervisor runs the guest")),
        GuestState::Paused => paused("Paused", "the guest is paused"),
        GuestState::Asleep => paused("Asleep", "the guest has put itself to sleep; stop it and start it again"),
        GuestState::DiskError { is_full: true } => paused(
            "HostDiskFull",
            "the disk of the host is full: the guest is paused, and goes on as soon as there is room again",
        ),
        GuestState::DiskError { is_full: false } => {
            paused("HostDiskFailed", "the disk of the host failed a write of the guest: the guest is paused")
        }
        GuestState::Crashed => paused("GuestCrashed", "the guest's kernel has crashed; stop it and start it again"),
        GuestState::Broken => {
            paused("HypervisorFault", "the hypervisor cannot go on with the guest; stop it and start it again")
        }
        GuestState::ShutDown => (Stopping, Verdict::no("PoweringOff", "the guest has powered itself off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_guest_that_is_executed_is_ready() {
        for (state, phase, reason) in [
            (GuestState::Running, MachinePhase::Running, "Running"),
            (GuestState::Paused, MachinePhase::Paused, "Paused"),
            (GuestState::Asleep, MachinePhase::Paused, "Asleep"),
            (GuestState::DiskError { is_full: true }, MachinePhase::Paused, "HostDiskFull"),
            (GuestState::DiskError { is_full: false }, MachinePhase::Paused, "HostDiskFailed"),
            (GuestState::Crashed, MachinePhase::Paused, "GuestCrashed"),
            (GuestState::Broken, MachinePhase::Paused, "HypervisorFault"),
            (GuestState::ShutDown, MachinePhase::Stopping, "PoweringOff"),
        ] {
            let (found, verdict) = of_state(state);
            assert_eq!((found, verdict.reason.as_str()), (phase, reason), "{state:?}");
            assert_eq!(verdict.status == "True", state == GuestState::Running, "{state:?}");
        }
    }
}
