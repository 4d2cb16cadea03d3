//! VirtualMachine: its desired and its observed state.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placement;
use crate::names;

/// The condition that says that the guest's operating system is up, as far as can be seen from outside.
pub const GUEST_READY: &str = "GuestReady";

/// The schema for an evroc Virtual Machine API.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "compute.evroclabs.net",
    version = "v1alpha1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    shortname = "vm",
    namespaced,
    category = "all",
    status = "VirtualMachineStatus"
)]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#
)]
#[kube(printcolumn = r#"{"name":"VirtualMachineStatus","type":"string","jsonPath":".status.virtualMachineStatus"}"#)]
#[kube(printcolumn = r#"{"name":"IP","type":"string","jsonPath":".status.networking.privateIPv4Address"}"#)]
#[kube(printcolumn = r#"{"name":"Public IP","type":"string","jsonPath":".status.networking.publicIPv4Address"}"#)]
#[kube(
    printcolumn = r#"{"name":"Guest","type":"string","jsonPath":".status.conditions[?(@.type==\"GuestReady\")].status","priority":1}"#
)]
#[kube(
    printcolumn = r#"{"name":"Profile","type":"string","jsonPath":".spec.vmVirtualResourcesRef.vmVirtualResourcesRefName","priority":1}"#
)]
#[kube(printcolumn = r#"{"name":"Zone","type":"string","jsonPath":".status.placement.zone","priority":1}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","priority":1}"#)]
#[kube(selectable = ".status.virtualMachineStatus")]
#[kube(selectable = ".spec.placementGroup")]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// Whether the VM should be running or not. If not set, this defaults to true.
    #[serde(default = "yes")]
    #[schemars(default = "yes")]
    pub running: bool,
    /// The VMVirtualResources object: virtual processors, memory and architecture.
    pub vm_virtual_resources_ref: VMVirtualResourcesRef,
    /// The VM's disks: one to boot from and up to nine more.
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"],
        "x-kubernetes-validations" = [{"rule": "self.filter(d, has(d.bootFrom) && d.bootFrom).size() <= 1", "message": "only one disk can have bootFrom: true"}]))]
    pub disk_refs: Vec<DiskRef>,
    /// The name of the placement group to use for this VM; empty means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::LABEL_OR_EMPTY))]
    pub placement_group: Option<String>,
    /// Settings that are applied to the guest operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_settings: Option<VMOSSettings>,
    /// Networking settings for the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networking: Option<VMNetworkingSettings>,
    /// The placement of the VM. Without a zone it follows its disks, then its placement group, and else it is in the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

fn yes() -> bool {
    true
}

/// A reference to a VMVirtualResources object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VMVirtualResourcesRef {
    /// The name, `<series>.<size>`, for example `test.xs` or `a1a.l`; `kubectl get vmvirtualresources` lists them.
    #[schemars(length(min = 1, max = 253), regex(pattern = names::SUBDOMAIN))]
    pub vm_virtual_resources_ref_name: String,
}

/// A reference to a Disk object. If marked as bootFrom, the VM will boot from the disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskRef {
    /// Name of the Disk object which should be attached to the VM.
    #[schemars(length(min = 1, max = 63), regex(pattern = names::LABEL))]
    pub name: String,
    /// Whether the VM should boot from this disk. Only one disk can be marked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_from: Option<bool>,
}

/// Settings of the guest operating system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VMOSSettings {
    /// User data passed to the VM: text of any form that cloud-init takes, or the same in base64 (either alphabet, padding optional; the only
    /// way for compressed data); at most 1 MiB. Cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1_048_576))]
    pub cloud_init_user_data: Option<String>,
    /// SSH settings in the guest operating system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<VMSSHSettings>,
}

/// SSH settings in the guest operating system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VMSSHSettings {
    /// Public SSH keys for `evroc-user`, written on first boot; later changes have no effect. With cloudInitUserData they are applied only
    /// where it references them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub authorized_keys: Vec<VMAuthorizedKey>,
}

/// One SSH public key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VMAuthorizedKey {
    /// A line of an authorized_keys file according to sshd(8): options, type, key, comment. At most 16,384 bytes.
    pub value: String,
}

/// The networking configuration for the VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VMNetworkingSettings {
    /// The VM's public IPv4 address; without this it has none.
    #[serde(default, rename = "publicIPv4Address", skip_serializing_if = "Option::is_none")]
    pub public_ipv4_address: Option<VMPublicIPv4AddressSettings>,
    /// The security groups of the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<SecurityGroupSettings>,
}

/// The configuration for public IPv4 addresses on the VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VMPublicIPv4AddressSettings {
    /// Static addresses are not released when the VM is stopped.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    pub static_: Option<VMStaticPublicIPv4AddressSettings>,
}

/// The configuration for static IPv4 addresses on the VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VMStaticPublicIPv4AddressSettings {
    /// The name of the PublicIP; empty means none.
    #[serde(default, rename = "publicIPRef", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::LABEL_OR_EMPTY))]
    pub public_ip_ref: Option<String>,
}

/// Configuration for security groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupSettings {
    /// The security groups the VM belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_group_memberships: Vec<SecurityGroupMembershipRef>,
}

/// A security group the VM belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecurityGroupMembershipRef {
    /// The SecurityGroup's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = names::LABEL))]
    pub name: String,
}

/// The observed state of a virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineStatus {
    /// The state over time: `Ready` (the hypervisor runs the guest) and `GuestReady` (the guest's system is up).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The state in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine_status: Option<VirtualMachineStatusType>,
    /// The addresses of the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networking: Option<VMNetworkStatus>,
    /// The mapping between permanent disks and devices on the VM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached_disks: Vec<AttachedDiskStatus>,
    /// The placement of the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The number of the VM's last incarnation on a host; it only ever grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The virtual hardware of the VM, chosen at its first start and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// How many times the guest was started again after it ended by itself; reset after ten minutes of running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i32>,
}

/// Named versions of virtual hardware: a guest finds the same devices and processor features after an upgrade of the hypervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// The board and its devices, for example `pc-i440fx-7.2`.
    pub machine_type: String,
    /// The processor, for example `x86-64-v3`, or `host` for the features of the host's own.
    pub cpu_model: String,
}

/// The addresses of a VM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VMNetworkStatus {
    /// The private IPv4 address; it stays with the VM for its whole life.
    #[serde(default, rename = "privateIPv4Address", skip_serializing_if = "Option::is_none")]
    pub private_ipv4_address: Option<String>,
    /// The public IPv4 address.
    #[serde(default, rename = "publicIPv4Address", skip_serializing_if = "Option::is_none")]
    pub public_ipv4_address: Option<String>,
}

/// The device of a permanent disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttachedDiskStatus {
    /// The name of the attached Disk.
    pub name: String,
    /// The device on the VM, for example `/dev/vda`.
    pub device: String,
}

/// The state of a virtual machine in one word; the values are the definition's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the definition has its own descriptions; each name explains itself")]
pub enum VirtualMachineStatusType {
    Creating,
    ProvisioningFailed,
    Deleting,
    Stopped,
    Provisioning,
    Starting,
    Running,
    Paused,
    Stopping,
    Terminating,
    CrashLoopBackOff,
    Migrating,
    Unknown,
    ErrorUnschedulable,
    ErrImagePull,
    ImagePullBackOff,
    ErrorPvcNotFound,
    DataVolumeError,
    WaitingForVolumeBinding,
}

impl VirtualMachineStatusType {
    /// Whether a host may hold resources of the VM in this state: its Machine exists or is about to.
    pub fn is_on_a_host(self) -> bool {
        use VirtualMachineStatusType as State;
        match self {
            State::Provisioning
            | State::Starting
            | State::Running
            | State::Paused
            | State::Stopping
            | State::Terminating
            | State::CrashLoopBackOff
            | State::Migrating
            | State::Unknown => true,
            State::Creating
            | State::ProvisioningFailed
            | State::Deleting
            | State::Stopped
            | State::ErrorUnschedulable
            | State::ErrImagePull
            | State::ImagePullBackOff
            | State::ErrorPvcNotFound
            | State::DataVolumeError
            | State::WaitingForVolumeBinding => false,
        }
    }
}

impl VirtualMachineSpec {
    /// The placement group, if it names one.
    pub fn group(&self) -> Option<&str> {
        self.placement_group.as_deref().filter(|name| !name.is_empty())
    }

    /// The disk to boot from: the marked one, or the only one.
    pub fn boot_disk(&self) -> Option<&DiskRef> {
        self.disk_refs.iter().find(|d| d.boot_from == Some(true)).or(match self.disk_refs.as_slice() {
            [only] => Some(only),
            _ => None,
        })
    }
}
