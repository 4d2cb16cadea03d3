//! `infra.evroclabs.net`: what really runs, on which host. Written by the platform only; tenants cannot read it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names;
use crate::run::EnvVar;

/// A machine that guests and containers run on. Its agent makes the object and reports.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "infra.evroclabs.net", version = "v1alpha1", kind = "Host", plural = "hosts", status = "HostStatus")]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(printcolumn = r#"{"name":"Accelerator","type":"string","jsonPath":".status.accelerator"}"#)]
#[kube(printcolumn = r#"{"name":"CPUs","type":"integer","jsonPath":".status.capacity.cpus"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// The zone of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether nothing new is placed on it.
    #[serde(default)]
    pub unschedulable: bool,
    /// How much of `status.allocatable.diskBytes` is promised to volumes, in percent: 100 if it is not set. A volume occupies only what
    /// its guest has written, so more than 100 promises the same bytes twice; a disk that is then full stops every guest on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub disk_overcommit_percent: Option<u32>,
}

/// The report of a host's agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// The state over time: Ready, and HardwareAcceleration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// `kvm` or `tcg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// The resources of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// The part of it that guests, containers and volumes may use in all, including what those that run use already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<Capacity>,
    /// The versioned machine types that its hypervisor offers, for example `pc-i440fx-10.0`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machine_types: Vec<String>,
    /// The named processor models that its hypervisor offers, for example `x86-64-v3`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu_models: Vec<String>,
}

/// Amounts of a host's resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Processors.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Disk in bytes.
    pub disk_bytes: u64,
}

/// The storage behind a Disk, on a host. Named as the disk, in its namespace.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infra.evroclabs.net",
    version = "v1alpha1",
    kind = "Volume",
    plural = "volumes",
    namespaced,
    status = "VolumeStatus"
)]
#[kube(printcolumn = r#"{"name":"Host","type":"string","jsonPath":".spec.hostName"}"#)]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(printcolumn = r#"{"name":"Bytes","type":"integer","jsonPath":".spec.sizeBytes"}"#)]
#[kube(selectable = ".spec.hostName")]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// The host that holds it.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub host_name: String,
    /// The image that it is cloned from; none for a blank disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub image: Option<String>,
    /// The SHA-256 of the image's bytes, in hexadecimal: which of the images that had this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::SHA256))]
    pub image_sha256: Option<String>,
    /// Its size in bytes. It can grow.
    pub size_bytes: u64,
    /// Whether no machine has ever been started with it: then it has no data, and may be removed to be made on another host. A host
    /// starts no machine with such a volume. It becomes false when a machine has its place, and never true again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub provisional: bool,
}

/// The host's report on a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The size that it has, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The state over time: Ready when a machine can use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One incarnation of a virtual machine on a host, in its namespace, named by [`machine_name`]. All that the host needs to run it is in
/// it, and it never changes: a changed machine is another incarnation.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infra.evroclabs.net",
    version = "v1alpha1",
    kind = "Machine",
    plural = "machines",
    namespaced,
    status = "MachineStatus"
)]
#[kube(printcolumn = r#"{"name":"Host","type":"string","jsonPath":".spec.hostName"}"#)]
#[kube(printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#)]
#[kube(printcolumn = r#"{"name":"Address","type":"string","jsonPath":".spec.network.address"}"#)]
#[kube(selectable = ".spec.hostName")]
#[kube(selectable = ".spec.virtualMachineUid")]
#[serde(rename_all = "camelCase")]
pub struct MachineSpec {
    /// The host that runs it.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub host_name: String,
    /// The number of the incarnation: `status.epoch` of the virtual machine when it was made. One with a lower number must not run
    /// any more.
    pub epoch: i64,
    /// The virtual machine's uid: names what must outlive one run (the guest's instance id).
    #[schemars(regex(pattern = names::UID))]
    pub virtual_machine_uid: String,
    /// The virtual machine's name, for people. Machines of earlier versions lack it and have the name themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub virtual_machine: Option<String>,
    /// The placement group of the virtual machine, of which no other machine is on the same host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::LABEL))]
    pub placement_group: Option<String>,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Its volumes in the order of their devices: `/dev/vda`, then after the seed `/dev/vdc`…
    pub volumes: Vec<MachineVolume>,
    /// Its place in the VPC.
    pub network: MachineNetwork,
    /// The guest's host name.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub hostname: String,
    /// SSH public keys for `evroc-user`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorized_keys: Vec<String>,
    /// User data as the user gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The versioned machine type, one of the host's `status.machineTypes`: a newer hypervisor does not change the guest's hardware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::HARDWARE))]
    pub machine_type: Option<String>,
    /// The named processor model, one of the host's `status.cpuModels`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::HARDWARE))]
    pub cpu_model: Option<String>,
    /// How many times the guest had ended by itself, shortly after its start, before this run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// The field of a machine that claims its host for its placement group.
pub const SPREAD_FIELD: &str = "spec.placementGroup";

/// The name of a virtual machine's incarnation.
pub fn machine_name(virtual_machine: &str, epoch: i64) -> String {
    format!("{virtual_machine}-{epoch}")
}

/// A volume of a machine. Optional fields are missing from machines of earlier versions only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineVolume {
    /// The Volume's name.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub name: String,
    /// Whether the firmware boots from it.
    #[serde(default)]
    pub boot: bool,
    /// The Volume's uid, by which the host's pool knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::UID))]
    pub uid: Option<String>,
    /// The Disk's uid: the serial number that the guest sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::UID))]
    pub disk_uid: Option<String>,
    /// The form of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<VolumeFormat>,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// The SHA-256 of the image that it was cloned from, in hexadecimal; absent for a blank disk too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::SHA256))]
    pub image_sha256: Option<String>,
}

/// The form of a volume's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VolumeFormat {
    /// As the guest sees them.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

/// A machine's place in its VPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineNetwork {
    /// The uid of the VPC: the host keeps one network namespace for each.
    #[schemars(regex(pattern = names::UID))]
    pub vpc_uid: String,
    /// The machine's address.
    #[schemars(regex(pattern = names::IPV4))]
    pub address: String,
    /// The network's prefix length.
    #[schemars(range(min = 8, max = 30))]
    pub prefix_length: u8,
    /// The gateway's address.
    #[schemars(regex(pattern = names::IPV4))]
    pub gateway: String,
    /// The machine's link address.
    #[schemars(regex(pattern = names::LINK_ADDRESS))]
    pub mac: String,
}

/// The host's report on a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// The epoch that this status describes.
    #[serde(default)]
    pub observed_epoch: i64,
    /// The phase of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePhase>,
    /// `kvm` or `tcg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// When the guest began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// How many times the host started it again.
    #[serde(default)]
    pub restarts: i32,
    /// The state over time: Ready (the hypervisor executes the guest) and GuestReady (the guest's ssh server answers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The phases of a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MachinePhase {
    /// Bound to the host, nothing made yet.
    Pending,
    /// The hypervisor is being started.
    Starting,
    /// The hypervisor runs the guest.
    Running,
    /// The hypervisor has stopped the guest's processors, for example because the host's disk is full; the condition says why.
    Paused,
    /// The guest was requested to stop.
    Stopping,
    /// The guest powered itself off.
    Stopped,
    /// It ended or cannot be started; the condition says why. Only the record of its exit shows this, never a failed observation.
    Failed,
    /// The host cannot find out; the condition says why. The guest may run.
    Unknown,
}

/// One instance of a revision on a host.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "infra.evroclabs.net",
    version = "v1alpha1",
    kind = "Replica",
    plural = "replicas",
    namespaced,
    status = "ReplicaStatus"
)]
#[kube(printcolumn = r#"{"name":"Host","type":"string","jsonPath":".spec.hostName"}"#)]
#[kube(printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".spec.revision"}"#)]
#[kube(printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[kube(selectable = ".spec.hostName")]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSpec {
    /// The host that runs it.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub host_name: String,
    /// The number of the incarnation.
    pub epoch: i64,
    /// The service's name.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub service: String,
    /// The revision's name.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub revision: String,
    /// The repository in the cloud's registry, for example `demo/hello`.
    #[schemars(length(max = 255), regex(pattern = names::REPOSITORY))]
    pub repository: String,
    /// The digest of the image's manifest.
    #[schemars(regex(pattern = names::DIGEST))]
    pub digest: String,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// The port that it listens on.
    pub port: i32,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// Processor limit in thousandths of a processor.
    pub cpu_millis: u32,
    /// How many times a container of the revision had ended by itself before this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: i32,
}

/// The host's report on a replica.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// The phase of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ReplicaPhase>,
    /// The state over time: Ready when its port accepts connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The phases of a replica's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReplicaPhase {
    /// Bound to the host, nothing made yet.
    Pending,
    /// The image is being pulled or the container started.
    Starting,
    /// Its port accepts connections.
    Running,
    /// It was requested to stop.
    Stopping,
    /// It ended, or cannot be started; the condition says why. Only the record of its exit shows this, never a failed observation.
    Failed,
    /// The host cannot find out; the condition says why. The container may run.
    Unknown,
}
