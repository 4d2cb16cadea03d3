//! When a guest that ended is started again. Pure.

use std::time::Duration;

use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Machine, MachinePhase};
use k8s_openapi::jiff::Timestamp;

use super::observe::Observed;

/// The pause before a guest that ended is started again for the first time; it doubles with every time that follows. Too low keeps
/// a host busy with a guest that cannot run; too high keeps its user waiting.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause: how long its user waits at most after the cause was removed.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The pause for a guest that ran for longer than [`LONG_LIFE`]: it is most likely rebooting or was shut down from within.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// How long a guest must have run for its end not to look like a failure to start.
const LONG_LIFE: Duration = Duration::from_secs(600);
/// The reason of hosts of earlier versions for a machine that they could not look at: it may run.
const CANNOT_OBSERVE: &str = "CannotObserve";

/// Whether the guest ended by itself or could not be started: `running: true` means that it is started again. A host that cannot
/// find out is no end.
pub(super) fn has_ended(machine: &Machine) -> bool {
    let Some(status) = &machine.status else { return false };
    match status.phase {
        Some(MachinePhase::Stopped) => true,
        Some(MachinePhase::Failed) => {
            conditions::get(&status.conditions, READY).is_none_or(|ready| ready.reason != CANNOT_OBSERVE)
        }
        None
        | Some(
            MachinePhase::Pending
            | MachinePhase::Starting
            | MachinePhase::Running
            | MachinePhase::Paused
            | MachinePhase::Stopping
            | MachinePhase::Unknown,
        ) => false,
    }
}

/// How long to wait before the next start.
pub(super) fn restart_pause(observed: &Observed, machine: &Machine, now: Timestamp) -> Duration {
    let Some((since, _)) = end_and_life(machine) else { return Duration::ZERO };
    let doublings = restarts(observed).unwrap_or_default().saturating_sub(1).clamp(0, 10).unsigned_abs();
    let pause = if has_lived_long(machine) { SHORT_PAUSE } else { (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE) };
    let waited = Duration::from_secs(now.as_second().saturating_sub(since.as_second()).max(0).unsigned_abs());
    pause.saturating_sub(waited)
}

/// How many times the guest ended by itself, the machine's own end included. While there is no machine the last count stands, until
/// the virtual machine is switched off.
pub(super) fn restarts(observed: &Observed) -> Option<i32> {
    if !observed.vm.spec.running {
        return None;
    }
    let Some(machine) = observed.machine() else { return observed.vm.status.as_ref()?.restarts };
    match has_ended(machine) {
        true if has_lived_long(machine) => Some(1),
        true => Some(machine.spec.restarts.saturating_add(1)),
        false => Some(machine.spec.restarts),
    }
}

/// When the machine stopped being ready, and how long it had been running by then.
fn end_and_life(machine: &Machine) -> Option<(Timestamp, Duration)> {
    let status = machine.status.as_ref()?;
    let since = conditions::get(&status.conditions, READY)?.last_transition_time.0;
    let lived = status.started_at.as_ref().map_or(0, |started| since.as_second() - started.0.as_second());
    Some((since, Duration::from_secs(lived.max(0).unsigned_abs())))
}

fn has_lived_long(machine: &Machine) -> bool {
    end_and_life(machine).is_some_and(|(_, lived)| lived > LONG_LIFE)
}
