//! Computes the status of a placement group: pure.

use evroc_api::compute::{
    Placement, PlacementGroupStatus, VirtualMachine, VirtualMachineMemberStatus, VirtualMachineStatusType as State,
    zone,
};
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::{COMPUTE_FINALIZER, deletion};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::observe::Observed;
use crate::place::unknown_zone;

/// The status that the observed state amounts to.
pub fn status(observed: &Observed, now: Timestamp) -> PlacementGroupStatus {
    let mut status = observed.group.status.clone().unwrap_or_default();
    let given = zone(status.placement.as_ref()).map(str::to_owned).or(observed.zones.first().cloned());
    let zone = zone(observed.group.spec.placement.as_ref()).map(str::to_owned).or(given);
    status.placement = zone.map(|zone| Placement { zone: Some(zone) });
    conditions::set(&mut status.conditions, READY, &verdict(observed), observed.group.metadata.generation, now);
    status.virtual_machines = observed.members.iter().map(|(vm, has_host)| member(vm, *has_host)).collect();
    status
}

/// Whether the reason why a placement group is not ready is a failure and not a step on its way.
pub fn is_failure(reason: &str) -> bool {
    !["InUse", "Deleting"].contains(&reason)
}

fn verdict(observed: &Observed) -> Verdict {
    if observed.group.metadata.deletion_timestamp.is_none() {
        let unknown = unknown_zone(zone(observed.group.spec.placement.as_ref()), &observed.zones);
        return unknown.unwrap_or_else(|| Verdict::yes("Ready", "VMs can use the placement group"));
    }
    if !observed.members.is_empty() {
        let names: Vec<String> =
            observed.members.iter().map(|(vm, _)| format!("VirtualMachine \"{}\"", vm.name_any())).collect();
        let message = format!("the placement group is deleted as soon as it is no longer used by {}", names.join(", "));
        return Verdict::no("InUse", message);
    }
    let blocker = deletion::waits_for(&observed.group.metadata, &[COMPUTE_FINALIZER], &[]);
    let blocker = blocker.map(|blocker| format!(": {blocker}")).unwrap_or_default();
    Verdict::no("Deleting", format!("the placement group is being deleted{blocker}"))
}

/// Describes a member without the names of hosts.
fn member(vm: &VirtualMachine, has_host: bool) -> VirtualMachineMemberStatus {
    let state = vm.status.as_ref().and_then(|status| status.virtual_machine_status);
    let why = match state {
        _ if has_host => None,
        Some(State::Stopped) => Some("the VM is stopped"),
        Some(State::ErrorUnschedulable) => Some("the VM has no host: its condition Ready says why"),
        _ => Some("the VM is on its way to a host, or waits for something else: its condition Ready says for what"),
    };
    VirtualMachineMemberStatus { name: vm.name_any(), scheduled: Some(has_host), message: why.map(str::to_owned) }
}
