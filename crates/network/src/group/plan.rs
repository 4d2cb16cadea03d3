//! Plans the next steps for a resource group: pure.

use evroc_api::GROUP_FINALIZER;
use evroc_api::iam::ResourceGroup;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Resource, ResourceExt};

use super::observe::Observed;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Keep the object until its namespace is removed.
    AddFinalizer,
    /// Make the namespace.
    CreateNamespace,
    /// Make the default VPC and subnet where they are missing.
    EnsureNetwork,
    /// Delete the namespace with all that is in it.
    DeleteNamespace,
    /// Remove the group's data outside the API, then let the object be removed.
    ForgetAndRemoveFinalizer,
}

/// Returns the steps that the observed state requires.
pub(super) fn plan(observed: &Observed) -> Vec<Step> {
    let is_deleted = observed.group.metadata.deletion_timestamp.is_some();
    let has_finalizer = observed.group.finalizers().iter().any(|f| f == GROUP_FINALIZER);
    if !is_deleted && !has_finalizer {
        return vec![Step::AddFinalizer];
    }
    match (&observed.namespace, is_deleted) {
        (None, false) => vec![Step::CreateNamespace],
        (Some(namespace), _) if is_own(&observed.group, namespace) => {
            match (is_deleted, namespace.metadata.deletion_timestamp.is_some()) {
                (true, false) => vec![Step::DeleteNamespace],
                (false, false) if !observed.has_network => vec![Step::EnsureNetwork],
                _ => vec![],
            }
        }
        (_, true) if has_finalizer => vec![Step::ForgetAndRemoveFinalizer],
        _ => vec![],
    }
}

/// Whether a namespace belongs to this very group, not to a former one of its name.
pub(super) fn is_own(group: &ResourceGroup, namespace: &Namespace) -> bool {
    owner(namespace).is_some_and(|owner| Some(owner) == group.uid().as_deref())
}

/// The uid of the resource group, this or a former one, that a namespace belongs to.
pub(super) fn owner(namespace: &Namespace) -> Option<&str> {
    let groups = namespace.owner_references().iter().find(|owner| owner.kind == ResourceGroup::kind(&()));
    groups.map(|owner| owner.uid.as_str())
}
