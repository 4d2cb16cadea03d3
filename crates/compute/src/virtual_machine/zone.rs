//! The zone of a virtual machine: its own, that of its disks, that of its placement group, or the first. Pure.

use evroc_api::compute::{VirtualMachineStatusType as State, zone};
use kube::ResourceExt;

use super::block::{Block, block};
use super::observe::Observed;

/// A zone, and what wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The zone; none if no host has one.
    pub zone: Option<String>,
    /// The object or field that wants it, for messages.
    pub from: String,
}

/// The zone of the virtual machine, or which of the objects that it consists of are in different ones.
pub(super) fn wanted(observed: &Observed) -> Result<Wanted, Block> {
    let vm = &observed.vm;
    let this = format!("VirtualMachine \"{}\"", vm.name_any());
    let own = zone(vm.spec.placement.as_ref()).map(|zone| (zone.to_owned(), this.clone()));
    let disks = observed.disks.iter().filter_map(|disk| Some((disk.zone.clone()?, format!("Disk \"{}\"", disk.name))));
    let group = of_group(observed).zip(vm.spec.group().map(|name| format!("PlacementGroup \"{name}\"")));
    let all: Vec<(String, String)> = own.clone().into_iter().chain(disks).chain(group).collect();
    let Some((zone, from)) = all.first() else {
        return Ok(Wanted { zone: observed.first_zone.clone(), from: "the first zone".into() });
    };
    if let Some((other_zone, other)) = all.iter().find(|(other, _)| other != zone) {
        let message = format!(
            "{from} is in zone \"{zone}\" and {other} in zone \"{other_zone}\": expected both in one zone; zones cannot be changed, so make \
             one of them anew in the zone of the other, or name another one"
        );
        return Err(block(State::ErrorUnschedulable, message));
    }
    let from = if own.is_some() { "spec.placement.zone".to_owned() } else { from.clone() };
    Ok(Wanted { zone: Some(zone.clone()), from })
}

/// The zone of the placement group: the one that it names, else the one that it was given.
fn of_group(observed: &Observed) -> Option<String> {
    let group = observed.group.as_ref()?;
    let given = group.status.as_ref().and_then(|status| zone(status.placement.as_ref()));
    zone(group.spec.placement.as_ref()).or(given).map(str::to_owned).or(observed.first_zone.clone())
}
