//! Conditions and reasons that more than one controller of this crate knows.

/// The condition that is True while a replica answers.
pub(crate) const ACTIVE: &str = "Active";
/// The reason of a revision for whose replica no host has room.
pub(crate) const UNSCHEDULABLE: &str = "Unschedulable";

/// Whether the reason why a revision or a service is not ready is a failure and not a step on its way.
pub(crate) fn is_failure(reason: &str) -> bool {
    const STEPS: [&str; 4] = ["Deploying", "NoReadyRevision", "Superseded", "Deleting"];
    !STEPS.contains(&reason)
}
