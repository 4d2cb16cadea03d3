//! Plans the next step for a placement group: pure.

use evroc_api::COMPUTE_FINALIZER;
use kube::ResourceExt;

use super::observe::Observed;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Keep the object while virtual machines name it.
    AddFinalizer,
    /// Let the object be removed.
    RemoveFinalizer,
}

/// Returns the step that the observed state requires.
pub fn plan(observed: &Observed) -> Option<Step> {
    let has_it = observed.group.finalizers().iter().any(|finalizer| finalizer == COMPUTE_FINALIZER);
    match observed.group.metadata.deletion_timestamp.is_some() {
        true => (has_it && observed.members.is_empty()).then_some(Step::RemoveFinalizer),
        false => (!has_it).then_some(Step::AddFinalizer),
    }
}
