//! Finds what keeps a virtual machine from running: the first obstacle, as a sentence for its user. Pure.

use evroc_api::compute::VirtualMachineStatusType as State;
use evroc_api::conditions::{self, READY};
use evroc_api::networking::DEFAULT_NETWORK;

use super::address::{free_address, kept_address};
use super::observe::{Observed, ObservedDisk};

/// Reasons of a disk that is on its way; every other reason is a failure.
const DISK_IN_PROGRESS: [&str; 4] = ["DiskImageDownloading", "Provisioning", "Pending", "ImportScheduled"];

/// An obstacle: the state that it amounts to, and a sentence that names the blocking object.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The state of the virtual machine because of it.
    pub state: State,
    /// For people.
    pub message: String,
}

pub(super) fn block(state: State, message: String) -> Block {
    Block { state, message }
}

/// The share of its host that a virtual machine takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// The first missing condition for the virtual machine to be placed, or the amounts that it takes from its host.
pub(super) fn size_or_block(observed: &Observed) -> Result<Size, Block> {
    unsupported(observed)?;
    if let Some(refused) = &observed.refused {
        return Err(block(State::ProvisioningFailed, format!("the VM's machine was refused: {refused}")));
    }
    let name = &observed.vm.spec.vm_virtual_resources_ref.vm_virtual_resources_ref_name;
    let profile = observed.profile.as_ref().ok_or_else(|| {
        let field = "spec.vmVirtualResourcesRef.vmVirtualResourcesRefName";
        block(
            State::ProvisioningFailed,
            format!("{field}: expected a name that `kubectl get vmvirtualresources` lists, found \"{name}\""),
        )
    })?;
    for (index, disk) in observed.disks.iter().enumerate() {
        disk_block(index, disk)?;
        nothing_to_boot(observed, index, disk)?;
    }
    no_group(observed)?;
    if observed.vpc.is_none() || observed.subnet.is_none() {
        return Err(block(State::Provisioning, "the resource group's VPC \"default\" is not ready yet".into()));
    }
    if let Some(Err(error)) = observed.subnet.as_ref().map(|subnet| subnet.spec.stored_range()) {
        let message = format!("subnet \"{DEFAULT_NETWORK}\": spec.ipv4CidrBlock.block: {error}");
        return Err(block(State::ProvisioningFailed, message));
    }
    if kept_address(observed).is_none() && free_address(observed).is_none() {
        let range = observed.subnet.as_ref().map(|s| s.spec.ipv4_cidr_block.block.clone()).unwrap_or_default();
        let message = format!(
            "subnet \"{DEFAULT_NETWORK}\" ({range}) has no free address: all are held by VMs of this resource group, stopped ones \
             too; delete a VM that is not needed"
        );
        return Err(block(State::ErrorUnschedulable, message));
    }
    Ok(Size { vcpus: profile.spec.vcpus, memory_bytes: profile.spec.memory.bytes().unwrap_or(u64::MAX) })
}

/// A placement group that does not exist may come; until then nothing can say where the virtual machine may run.
fn no_group(observed: &Observed) -> Result<(), Block> {
    match observed.vm.spec.group().filter(|_| observed.group.is_none()) {
        None => Ok(()),
        Some(name) => Err(block(
            State::ErrorUnschedulable,
            format!(
                "spec.placementGroup: expected the name of a PlacementGroup in this resource group, found \"{name}\"; `kubectl get \
                 placementgroups` lists them"
            ),
        )),
    }
}

/// Refuses references to kinds that do not exist yet.
fn unsupported(observed: &Observed) -> Result<(), Block> {
    let spec = &observed.vm.spec;
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let networking = spec.networking.as_ref();
    let public =
        networking.and_then(|n| n.public_ipv4_address.as_ref()?.static_.as_ref()).and_then(|s| given(&s.public_ip_ref));
    let group =
        networking.and_then(|n| n.security_groups.as_ref()?.security_group_memberships.first().map(|g| g.name.clone()));
    let missing = [
        ("spec.networking.publicIPv4Address.static.publicIPRef", "PublicIP", public),
        ("spec.networking.securityGroups.securityGroupMemberships[0].name", "SecurityGroup", group),
    ];
    for (field, kind, name) in missing {
        if let Some(name) = name {
            let message = format!(
                "{field}: {kind} \"{name}\" does not exist: this version has no {kind}s yet; leave the field out"
            );
            return Err(block(State::ProvisioningFailed, message));
        }
    }
    Ok(())
}

fn disk_block(index: usize, observed: &ObservedDisk) -> Result<(), Block> {
    let name = &observed.name;
    let Some(disk) = &observed.disk else {
        let message = format!(
            "spec.diskRefs[{index}].name: expected the name of a Disk in this resource group, found \"{name}\"; `kubectl get disks` lists them"
        );
        return Err(block(State::ErrorPvcNotFound, message));
    };
    if disk.metadata.deletion_timestamp.is_some() {
        return Err(block(
            State::ErrorPvcNotFound,
            format!("spec.diskRefs[{index}].name: Disk \"{name}\" is being deleted"),
        ));
    }
    let ready = disk.status.as_ref().and_then(|s| conditions::get(&s.conditions, READY));
    match ready {
        Some(ready) if ready.status == "True" => Ok(()),
        Some(ready) if ready.status == "False" && !DISK_IN_PROGRESS.contains(&ready.reason.as_str()) => {
            Err(block(State::DataVolumeError, format!("Disk \"{name}\": {}", ready.message)))
        }
        // On its way on a host: that does not keep the other disks from being made there too.
        _ if observed.volume.is_some() => Ok(()),
        Some(ready) => {
            Err(block(State::WaitingForVolumeBinding, format!("waits for Disk \"{name}\": {}", ready.message)))
        }
        None => Err(block(State::WaitingForVolumeBinding, format!("waits for Disk \"{name}\""))),
    }
}

/// A blank disk has no boot loader: the guest would hang in its firmware.
fn nothing_to_boot(observed: &Observed, index: usize, boot: &ObservedDisk) -> Result<(), Block> {
    let is_boot_disk = observed.vm.spec.boot_disk().is_some_and(|wanted| wanted.name == boot.name);
    if !is_boot_disk || boot.disk.as_ref().is_none_or(|disk| disk.spec.disk_image.is_some()) {
        return Ok(());
    }
    let message = format!(
        "spec.diskRefs[{index}].name: expected a boot disk that was made from an image, found Disk \"{}\", which is blank (it has no \
         spec.diskImage.diskImageRef); make the disk from one that `kubectl get diskimages` lists",
        boot.name
    );
    Err(block(State::ProvisioningFailed, message))
}
