//! Plans the next steps for a disk: pure.

use kube::ResourceExt;

use super::observe::Observed;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keep the object until its volume is deleted.
    AddFinalizer,
    /// Let the object be removed.
    RemoveFinalizer,
    /// Delete the volume.
    DeleteVolume,
}

/// Returns the steps that the observed state requires.
pub fn plan(observed: &Observed) -> Vec<Step> {
    if observed.disk.metadata.deletion_timestamp.is_some() {
        return match &observed.volume {
            _ if !observed.users.is_empty() => vec![],
            Some(volume) if volume.metadata.deletion_timestamp.is_none() => vec![Step::DeleteVolume],
            Some(_) => vec![],
            None => vec![Step::RemoveFinalizer],
        };
    }
    match observed.disk.finalizers().iter().any(|f| f == evroc_api::COMPUTE_FINALIZER) {
        true => vec![],
        false => vec![Step::AddFinalizer],
    }
}
