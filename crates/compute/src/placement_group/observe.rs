//! Everything that matters for one placement group.

use evroc_api::compute::{PlacementGroup, VirtualMachine};
use evroc_controller::{Result, get};
use kube::ResourceExt;
use kube::api::Api;

use crate::context::{Compute, key};

/// A placement group and what surrounds it, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The placement group.
    pub group: PlacementGroup,
    /// The virtual machines that name it, by name, each with whether it has a host.
    pub members: Vec<(VirtualMachine, bool)>,
    /// The zones of all hosts.
    pub zones: Vec<String>,
}

/// Reads everything for one placement group; `None` if it does not exist.
pub async fn observe(context: &Compute, namespace: &str, name: &str) -> Result<Option<Observed>> {
    let groups = Api::<PlacementGroup>::namespaced(context.base.client.clone(), namespace);
    let Some(group) = get(&groups, name).await? else { return Ok(None) };
    let has_host =
        |vm: &VirtualMachine| vm.uid().is_some_and(|uid| !context.machines_by_owner.references(&uid).is_empty());
    let members = context.vms_by_group.get(&key(namespace, name));
    let mut members: Vec<_> = members.iter().map(|vm| ((**vm).clone(), has_host(vm))).collect();
    members.sort_by_key(|(vm, _)| vm.name_any());
    Ok(Some(Observed { group, members, zones: context.book.zones() }))
}
