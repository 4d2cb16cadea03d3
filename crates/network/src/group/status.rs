//! Computes the status of a resource group: pure.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::iam::ResourceGroupStatus;
use evroc_api::{GROUP_FINALIZER, deletion};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::observe::Observed;
use super::plan::{is_own, owner};

/// The reason of a group whose name is that of a namespace that is no group's.
const NAMESPACE_TAKEN: &str = "NamespaceTaken";
/// The reason of a group whose namespace is removed and that only a finalizer keeps.
const DELETING: &str = "Deleting";

/// The status that the observed state amounts to; `None` while there is nothing to report.
pub(super) fn status(observed: &Observed, now: Timestamp) -> Option<ResourceGroupStatus> {
    let verdict = verdict(observed)?;
    let has_namespace = verdict.reason != NAMESPACE_TAKEN && verdict.reason != DELETING;
    let namespace = has_namespace.then(|| observed.group.name_any());
    let mut status = ResourceGroupStatus { namespace, ..observed.group.status.clone().unwrap_or_default() };
    conditions::set(&mut status.conditions, READY, &verdict, observed.group.metadata.generation, now);
    Some(status)
}

fn verdict(observed: &Observed) -> Option<Verdict> {
    let (group, name) = (&observed.group, observed.group.name_any());
    let is_deleted = group.metadata.deletion_timestamp.is_some();
    match &observed.namespace {
        Some(namespace) if is_own(group, namespace) => {
            if is_deleted || namespace.metadata.deletion_timestamp.is_some() {
                Some(terminating(namespace))
            } else if observed.has_network && observed.is_network_reported {
                Some(Verdict::yes("Ready", "the resource group can be used"))
            } else {
                None
            }
        }
        _ if is_deleted => {
            let blocker = deletion::waits_for(&group.metadata, &[GROUP_FINALIZER], &[])?;
            Some(Verdict::no(DELETING, format!("the resource group is empty and is being deleted: {blocker}")))
        }
        None => None,
        Some(namespace) if owner(namespace).is_some() => Some(terminating(namespace)),
        Some(_) => Some(Verdict::no(
            NAMESPACE_TAKEN,
            format!(
                "namespace \"{name}\" exists and belongs to no resource group: choose another name for the resource group"
            ),
        )),
    }
}

/// Returns the namespace's own report, which names the blocking objects.
fn terminating(namespace: &Namespace) -> Verdict {
    let mut message = format!("waits until namespace \"{}\" has emptied itself", namespace.name_any());
    let conditions = namespace.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let reported = ["NamespaceContentRemaining", "NamespaceFinalizersRemaining"];
    let remaining = conditions.filter(|c| c.status == "True" && reported.contains(&c.type_.as_str()));
    let remaining: Vec<&str> = remaining.filter_map(|c| c.message.as_deref()).collect();
    if !remaining.is_empty() {
        message.push_str(&format!(": {}", remaining.join("; ")));
    }
    Verdict::no("NamespaceTerminating", message)
}
