//! Disk: durable storage that a virtual machine boots from or uses.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placement;
use crate::names::{self, LONGEST_LABEL, NameRule};
use crate::rules::{Immutable, KindRules};
use crate::units::Size;

/// The schema for a disk.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "compute.evroclabs.net",
    version = "v1alpha1",
    kind = "Disk",
    plural = "disks",
    shortname = "disk",
    namespaced,
    category = "all",
    status = "DiskStatus"
)]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#
)]
#[kube(printcolumn = r#"{"name":"Size","type":"integer","jsonPath":".status.diskSize.amount"}"#)]
#[kube(printcolumn = r#"{"name":"Unit","type":"string","jsonPath":".status.diskSize.unit"}"#)]
#[kube(printcolumn = r#"{"name":"VM","type":"string","jsonPath":".status.diskUsage[0].vm"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[kube(printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.diskImage.diskImageRef.name","priority":1}"#)]
#[kube(printcolumn = r#"{"name":"Zone","type":"string","jsonPath":".status.placement.zone","priority":1}"#)]
#[kube(selectable = ".spec.diskImage.diskImageRef.name")]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.diskImage) || has(self.diskSize)", "message": "diskSize is required for a disk without an image: give spec.diskSize, for example {amount: 10, unit: GB}, or spec.diskImage", "reason": "FieldValueRequired", "fieldPath": ".diskSize"}]))]
pub struct DiskSpec {
    /// The size of the disk. If not specified, the default size of the disk image is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<Size>,
    /// The OS image for this disk; without one the disk is blank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_image: Option<DiskImageInfo>,
    /// The disk storage class for this disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_storage_class: Option<DiskStorageClassInfo>,
    /// The placement of the disk. Without a zone it gets that of the first VM that runs with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

impl KindRules for Disk {
    const NAMES: NameRule = NameRule::label(LONGEST_LABEL, "VMs refer to the disk by a name of this form");
    const IMMUTABLE: &'static [Immutable] = &[
        Immutable { path: "diskSize", message: "diskSize cannot be changed in this version: make a new disk" },
        Immutable { path: "diskImage", message: "the image of a disk cannot be changed: make a new disk" },
        Immutable {
            path: "diskStorageClass",
            message: "the storage class of a disk cannot be changed: make a new disk",
        },
        Immutable {
            path: "placement.zone",
            message: "the zone of a disk cannot be changed: make a new disk in the other zone",
        },
    ];
}

/// The OS image of a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskImageInfo {
    /// A reference to a DiskImage object.
    pub disk_image_ref: DiskImageRef,
}

/// A reference to a DiskImage object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskImageRef {
    /// The name of the DiskImage to use; `kubectl get diskimages` lists them.
    #[schemars(length(min = 1, max = 253), regex(pattern = names::SUBDOMAIN))]
    pub name: String,
}

/// The storage class of a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskStorageClassInfo {
    /// `persistent`: survives node failure and can be detached and reused.
    pub name: StorageClassName,
}

/// The storage classes of this generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StorageClassName {
    /// Survives node failure and can be detached and reused.
    #[default]
    Persistent,
}

/// The observed state of a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// The state of the disk over time; Ready=True when it can be used by a VM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The allocated disk size, either user-defined or the image's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<Size>,
    /// The placement of the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The VMs that name the disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk_usage: Vec<DiskUse>,
}

/// One use of a disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskUse {
    /// The kind of usage.
    pub use_kind: DiskUseKind,
    /// The VM consuming this disk.
    pub vm: String,
    /// The HotswapDiskAttachment driving this usage, if the kind is `hotswap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<String>,
}

/// The way in which a disk is being consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DiskUseKind {
    /// The disk is permanently attached to a VM.
    Permanent,
    /// The disk is hotswap attached to a VM.
    Hotswap,
}
