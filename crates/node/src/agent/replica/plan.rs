//! Decides the next step of a replica: a pure function of the object, the observation of its container, and how long it has been deleted.

use std::time::Duration;

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Replica, ReplicaPhase};
use evroc_api::{GATEWAY_FINALIZER, NODE_FINALIZER};
use kube::ResourceExt;

use crate::container::containers::ObservedContainer;
use crate::shim::Exit;

/// How long the gateway gets to drain a replica. Too low cuts long answers off; too high keeps a dead gateway's replicas.
const DRAIN: Duration = Duration::from_secs(30);
/// A container that cannot be observed for longer is reported so; a shorter gap would cost two writes for nothing.
const REPORT_AFTER: Duration = Duration::from_secs(5);

/// The kinds of work that the owner of a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Start,
    End,
    Drain,
}

/// The observation of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Observation {
    /// Its owner is at work.
    Busy(Kind),
    /// It was observed.
    Seen(ObservedContainer),
    /// It could not be observed.
    Unseen {
        /// For how long.
        since: Duration,
        /// The error.
        error: String,
    },
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing until something changes.
    Wait,
    /// The container runs and serves: wait for its end.
    Watch,
    /// Start it, or go on with its start.
    Start,
    /// Report that it has failed for good.
    Fail(Verdict),
    /// Look again soon; report why it cannot be observed.
    LookAgain(Option<Verdict>),
    /// Let the gateway drain it for so long.
    Drain(Duration),
    /// End it and remove every piece of it.
    End,
}

pub(super) fn plan(replica: &Replica, observation: &Observation, deleted_for: Duration) -> Step {
    if replica.metadata.deletion_timestamp.is_some() {
        return plan_end(replica, observation, deleted_for);
    }
    let status = replica.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    match observation {
        _ if phase == Some(ReplicaPhase::Failed) => Step::Wait,
        Observation::Busy(_) => Step::Wait,
        Observation::Unseen { since, error } => Step::LookAgain((*since >= REPORT_AFTER).then(|| {
            Verdict::unknown("CannotObserve", format!("the host cannot observe the container, which may run: {error}"))
        })),
        Observation::Seen(ObservedContainer::Running) => match phase {
            Some(ReplicaPhase::Running) => Step::Watch,
            Some(ReplicaPhase::Unknown)
                if status.is_some_and(|status| conditions::is_true(&status.conditions, READY)) =>
            {
                Step::Watch
            }
            _ => Step::Start,
        },
        Observation::Seen(ObservedContainer::Ended(exit)) if exit.code.is_some() || exit.signal.is_some() => {
            Step::Fail(ended_verdict(exit))
        }
        // Its end was not recorded: it is the host's to start it again.
        Observation::Seen(ObservedContainer::Ended(_) | ObservedContainer::Incomplete | ObservedContainer::Absent) => {
            Step::Start
        }
    }
}

fn plan_end(replica: &Replica, observation: &Observation, deleted_for: Duration) -> Step {
    if !replica.finalizers().iter().any(|f| f == NODE_FINALIZER) {
        return Step::Wait;
    }
    let may_serve = match observation {
        Observation::Busy(Kind::End | Kind::Drain) => return Step::Wait,
        // It was never ready, so it has no requests.
        Observation::Busy(Kind::Start) => false,
        Observation::Seen(observed) => *observed == ObservedContainer::Running,
        // It may run and answer requests.
        Observation::Unseen { .. } => true,
    };
    let is_held = replica.finalizers().iter().any(|f| f == GATEWAY_FINALIZER);
    let left = DRAIN.saturating_sub(deleted_for);
    if is_held && may_serve && !left.is_zero() { Step::Drain(left) } else { Step::End }
}

/// Describes how a container ended, with the last line that it wrote to its standard error.
pub(super) fn ended_verdict(exit: &Exit) -> Verdict {
    let last = exit.stderr_tail.trim().lines().next_back().map(|line| format!("; its last line: {line}"));
    let reason = if exit.oom { "ContainerOutOfMemory" } else { "ContainerExited" };
    Verdict::no(reason, format!("the container {}{}", exit.reason, last.unwrap_or_default()))
}
