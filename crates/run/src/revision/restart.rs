//! When a container that failed is started again. Pure.

use std::time::Duration;

use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Replica, ReplicaPhase};
use k8s_openapi::jiff::Timestamp;

use super::observe::Observed;
use crate::proven::proof;

/// The pause before a container that failed is started again; it doubles with every failure in a row. Too low keeps a host busy with a
/// container that cannot run; too high keeps requests waiting.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause: how long its user waits at most after the cause was removed.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long a container must have lived for its end not to count with the failures before it.
const LONG_LIFE: Duration = Duration::from_secs(600);
/// The reasons of failures that the same container will meet again.
const PERMANENT: [&str; 2] = ["ContainerInvalid", "ImageInvalid"];

/// Whether a replica ended, or could not be started. A host that cannot find out is no end.
pub(super) fn has_failed(replica: &Replica) -> bool {
    replica.status.as_ref().and_then(|status| status.phase) == Some(ReplicaPhase::Failed)
}

/// How many times a container of the revision ended by itself. While there is none, the last count stands until one that answered
/// was removed because it was not needed.
pub(super) fn restarts(observed: &Observed) -> Option<i32> {
    let counts = observed.replicas.iter().map(|replica| match has_failed(replica) {
        true if has_lived_long(replica) => 1,
        true => replica.spec.restarts.saturating_add(1),
        false => replica.spec.restarts,
    });
    let status = observed.revision.status.as_ref();
    counts.max().or_else(|| {
        let is_well = status.is_some_and(|status| conditions::is_true(&status.conditions, READY));
        status.and_then(|status| status.restarts).filter(|_| !is_well)
    })
}

/// How long to wait before this replica, which failed, is replaced. The first failure of a revision that has answered before is no
/// reason to have requests wait.
pub(super) fn pause(observed: &Observed, failed: &Replica, now: Timestamp) -> Duration {
    let ready = failed.status.as_ref().and_then(|status| conditions::get(&status.conditions, READY));
    let Some(ready) = ready else { return Duration::ZERO };
    let is_proven = observed.revision.status.as_ref().is_some_and(|status| proof(status).is_some());
    let failures = restarts(observed).unwrap_or(1).max(1) - i32::from(is_proven);
    let pause = if PERMANENT.contains(&ready.reason.as_str()) {
        LONGEST_PAUSE
    } else {
        match failures {
            ..=0 => Duration::ZERO,
            failures => (FIRST_PAUSE * (1 << (failures - 1).clamp(0, 10))).min(LONGEST_PAUSE),
        }
    };
    pause.saturating_sub(now.duration_since(ready.last_transition_time.0).unsigned_abs())
}

fn has_lived_long(failed: &Replica) -> bool {
    let ended = failed.status.as_ref().and_then(|status| conditions::get(&status.conditions, READY));
    let (Some(ended), Some(created)) = (ended, &failed.metadata.creation_timestamp) else { return false };
    let lived = ended.last_transition_time.0.duration_since(created.0);
    lived.is_positive() && lived.unsigned_abs() > LONG_LIFE
}
