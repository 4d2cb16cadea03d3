//! Everything that matters for one virtual machine.

use std::net::Ipv4Addr;

use evroc_api::compute::{Disk, VMVirtualResources, VirtualMachine};
use evroc_api::infra::{Host, Machine, Volume};
use evroc_api::networking::{DEFAULT_NETWORK, Subnet, VirtualPrivateCloud};
use evroc_controller::{Result, api_error, get};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

/// A disk that the VM names, as far as it exists.
#[derive(Clone, Debug)]
pub struct ObservedDisk {
    /// The name in `spec.diskRefs`.
    pub name: String,
    /// The disk.
    pub disk: Option<Disk>,
    /// The volume behind it.
    pub volume: Option<Volume>,
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
    /// What runs it.
    pub machine: Option<Machine>,
    /// All machines, for the room that is left.
    pub machines: Vec<Machine>,
    /// All hosts.
    pub hosts: Vec<Host>,
    /// The VPC of its resource group.
    pub vpc: Option<VirtualPrivateCloud>,
    /// The subnet of its resource group.
    pub subnet: Option<Subnet>,
    /// The addresses that other virtual machines of the group have.
    pub taken_addresses: Vec<Ipv4Addr>,
}

/// Reads everything for one virtual machine; `None` when it is gone.
pub async fn observe(client: &Client, namespace: &str, name: &str) -> Result<Option<Observed>> {
    let vms = Api::<VirtualMachine>::namespaced(client.clone(), namespace);
    let Some(vm) = get(&vms, name).await? else { return Ok(None) };
    let everything = ListParams::default();
    let others = vms.list(&everything).await.map_err(api_error("list virtual machines"))?.items;
    let mut disks = Vec::new();
    for reference in &vm.spec.disk_refs {
        disks.push(ObservedDisk {
            name: reference.name.clone(),
            disk: get(&Api::<Disk>::namespaced(client.clone(), namespace), &reference.name).await?,
            volume: get(&Api::<Volume>::namespaced(client.clone(), namespace), &reference.name).await?,
        });
    }
    let profile = &vm.spec.vm_virtual_resources_ref.vm_virtual_resources_ref_name;
    Ok(Some(Observed {
        profile: get(&Api::<VMVirtualResources>::all(client.clone()), profile).await?,
        disks,
        machine: get(&Api::<Machine>::namespaced(client.clone(), namespace), name).await?,
        machines: Api::<Machine>::all(client.clone())
            .list(&everything)
            .await
            .map_err(api_error("list machines"))?
            .items,
        hosts: Api::<Host>::all(client.clone()).list(&everything).await.map_err(api_error("list hosts"))?.items,
        vpc: get(&Api::<VirtualPrivateCloud>::namespaced(client.clone(), namespace), DEFAULT_NETWORK).await?,
        subnet: get(&Api::<Subnet>::namespaced(client.clone(), namespace), DEFAULT_NETWORK).await?,
        taken_addresses: others.iter().filter(|other| other.uid() != vm.uid()).filter_map(address).collect(),
        vm,
    }))
}

/// The private address that a virtual machine was given.
pub fn address(vm: &VirtualMachine) -> Option<Ipv4Addr> {
    vm.status.as_ref()?.networking.as_ref()?.private_ipv4_address.as_ref()?.parse().ok()
}
