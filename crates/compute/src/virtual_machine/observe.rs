//! Everything that matters for one virtual machine.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use evroc_api::compute::{Disk, DiskImage, PlacementGroup, VMVirtualResources, VirtualMachine, zone};
use evroc_api::infra::{Machine, Volume};
use evroc_api::networking::{DEFAULT_NETWORK, Subnet, VirtualPrivateCloud};
use evroc_controller::{Result, get};
use evroc_placement::HostFacts;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;

use crate::context::{Compute, group_of};

/// A disk that the VM names, as far as it exists.
#[derive(Clone, Debug)]
pub struct ObservedDisk {
    /// The name in `spec.diskRefs`.
    pub name: String,
    /// The disk.
    pub disk: Option<Disk>,
    /// The volume behind it.
    pub volume: Option<Volume>,
    /// The image that it names.
    pub image: Option<DiskImage>,
    /// The zone that it names, or else that of the host which has its data.
    pub zone: Option<String>,
    /// The reason why the API refused its volume for good.
    pub refused: Option<String>,
}

/// A virtual machine and what surrounds it, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The virtual machine.
    pub vm: VirtualMachine,
    /// Its profile, if there is one of that name.
    pub profile: Option<VMVirtualResources>,
    /// Its disks, in the order of `spec.diskRefs`.
    pub disks: Vec<ObservedDisk>,
    /// Its incarnations, the current one first. There are several only while one of an earlier version ends.
    pub machines: Vec<Machine>,
    /// The zone of the host that the current incarnation is on.
    pub zone: Option<String>,
    /// Its placement group, if there is one of that name.
    pub group: Option<PlacementGroup>,
    /// The hosts on which other virtual machines of its placement group are.
    pub group_hosts: Vec<String>,
    /// The first of all zones: that of what names none.
    pub first_zone: Option<String>,
    /// All hosts; read only if there is no incarnation.
    pub hosts: Vec<HostFacts>,
    /// The VPC of its resource group.
    pub vpc: Option<VirtualPrivateCloud>,
    /// The subnet of its resource group.
    pub subnet: Option<Subnet>,
    /// The addresses that other virtual machines of the group have; read only if it has none of its subnet itself.
    pub taken_addresses: HashSet<Ipv4Addr>,
    /// The reason why the API refused its machine for good.
    pub refused: Option<String>,
}

impl Observed {
    /// The machine that runs it.
    pub fn machine(&self) -> Option<&Machine> {
        self.machines.first()
    }
}

/// Reads everything for one virtual machine; `None` if it does not exist. The virtual machine is read afresh, because its status is
/// written by compare-and-set; decisions from the informers are checked again by the store when they are carried out.
pub async fn observe(context: &Compute, namespace: &str, name: &str) -> Result<Option<Observed>> {
    let vms = Api::<VirtualMachine>::namespaced(context.base.client.clone(), namespace);
    let Some(vm) = get(&vms, name).await? else { return Ok(None) };
    context.book.settle().await?;
    let (uid, now) = (vm.uid().unwrap_or_default(), context.base.now());
    let in_group = Some(namespace);
    let disk = |name: &String| observe_disk(context, namespace, name, now);
    let mut machines: Vec<Machine> =
        context.machines_by_owner.get(&uid).iter().map(|machine| (**machine).clone()).collect();
    machines.sort_by_key(|machine| (machine.metadata.deletion_timestamp.is_some(), -machine.spec.epoch));
    let host = machines.first().and_then(|machine| context.book.host(&machine.spec.host_name));
    let subnet = context.subnets.get(in_group, DEFAULT_NETWORK).map(|subnet| (*subnet).clone());
    let range = subnet.as_ref().and_then(|subnet| subnet.spec.stored_range().ok());
    let others = match address(&vm).zip(range) {
        Some((address, range)) if range.is_usable(address) => vec![],
        _ => context.vms_by_namespace.get(namespace),
    };
    let profile = &vm.spec.vm_virtual_resources_ref.vm_virtual_resources_ref_name;
    let (group, group_hosts) = observe_group(context, &vm);
    Ok(Some(Observed {
        group,
        group_hosts,
        first_zone: context.book.zones().into_iter().next(),
        profile: context.profiles.get(None, profile).map(|profile| (*profile).clone()),
        disks: vm.spec.disk_refs.iter().map(|reference| disk(&reference.name)).collect(),
        zone: host.and_then(|host| host.spec.zone.clone()),
        hosts: if machines.is_empty() { context.book.facts(&uid, now) } else { vec![] },
        machines,
        vpc: context.vpcs.get(in_group, DEFAULT_NETWORK).map(|vpc| (*vpc).clone()),
        subnet,
        taken_addresses: others
            .iter()
            .filter(|other| other.uid() != vm.uid())
            .filter_map(|other| address(other))
            .collect(),
        refused: context.refusals.of(&vm, now),
        vm,
    }))
}

/// The private address that a virtual machine was given.
pub fn address(vm: &VirtualMachine) -> Option<Ipv4Addr> {
    vm.status.as_ref()?.networking.as_ref()?.private_ipv4_address.as_ref()?.parse().ok()
}

fn observe_disk(context: &Compute, namespace: &str, name: &str, now: Timestamp) -> ObservedDisk {
    let disk = context.disks.get(Some(namespace), name).map(|disk| (*disk).clone());
    let volume = context.volumes.get(Some(namespace), name).map(|volume| (*volume).clone());
    let image = disk.as_ref().and_then(|disk| disk.spec.disk_image.as_ref());
    let image = image.and_then(|image| context.images.get(None, &image.disk_image_ref.name));
    let named = disk.as_ref().and_then(|disk| zone(disk.spec.placement.as_ref())).map(str::to_owned);
    // One that was never used can be made elsewhere.
    let used = volume.as_ref().filter(|volume| !volume.spec.provisional);
    let of_host = || context.book.host(&used?.spec.host_name)?.spec.zone.clone();
    ObservedDisk {
        name: name.to_owned(),
        zone: named.or_else(of_host),
        image: image.map(|image| (*image).clone()),
        refused: disk.as_ref().and_then(|disk| context.refusals.of(disk, now)),
        disk,
        volume,
    }
}

/// The placement group that a virtual machine names, and the hosts of the other members: as long as their machines exist, in any state.
fn observe_group(context: &Compute, vm: &VirtualMachine) -> (Option<PlacementGroup>, Vec<String>) {
    let (Some(name), Some(key)) = (vm.spec.group(), group_of(vm)) else { return (None, vec![]) };
    let group = context.groups.get(vm.namespace().as_deref(), name).map(|group| (*group).clone());
    let members = context.vms_by_group.get(&key).into_iter().filter(|member| member.uid() != vm.uid());
    let machines = members.flat_map(|member| context.machines_by_owner.get(&member.uid().unwrap_or_default()));
    // A member that left the group while its machine ends is not one any more, but its place is not free yet.
    let of_group = |machine: &Machine| machine.spec.placement_group.as_deref() == Some(name);
    (group, machines.filter(|machine| of_group(machine)).map(|machine| machine.spec.host_name.clone()).collect())
}
