//! The images, storage classes and sizes of virtual machines. Cluster-wide, read-only to tenants.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{self, NameRule};
use crate::rules::KindRules;
use crate::units::{Size, Unit};

impl KindRules for DiskImage {
    const NAMES: NameRule = NameRule::ANY;
}

impl KindRules for DiskStorageClass {
    const NAMES: NameRule = NameRule::ANY;
}

impl KindRules for VMVirtualResources {
    const NAMES: NameRule = NameRule::ANY;
}

/// An operating system image that disks are cloned from.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "compute.evroclabs.net",
    version = "v1alpha1",
    kind = "DiskImage",
    plural = "diskimages",
    status = "DiskImageStatus"
)]
#[kube(printcolumn = r#"{"name":"OS","type":"string","jsonPath":".spec.osImage"}"#)]
#[kube(printcolumn = r#"{"name":"Version","type":"string","jsonPath":".spec.osVersion"}"#)]
#[kube(printcolumn = r#"{"name":"Size","type":"integer","jsonPath":".spec.defaultSize.amount"}"#)]
#[kube(printcolumn = r#"{"name":"Unit","type":"string","jsonPath":".spec.defaultSize.unit"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct DiskImageSpec {
    /// The size of a disk that names none.
    pub default_size: Size,
    /// The smallest disk that holds the image, in bytes.
    #[serde(default)]
    pub minimum_size_bytes: u64,
    /// The processor architecture, `amd64`.
    pub os_arch: String,
    /// The operating system, for example `debian`.
    pub os_image: String,
    /// The operating system's version, for example `12`.
    pub os_version: String,
    /// The version of the image itself.
    pub version: String,
    /// The SHA-256 of the image's bytes, in hexadecimal.
    #[schemars(regex(pattern = names::SHA256))]
    pub sha256: String,
}

/// The observed state of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskImageStatus {
    /// The state over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A class of storage.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "compute.evroclabs.net", version = "v1alpha1", kind = "DiskStorageClass", plural = "diskstorageclasses")]
#[kube(printcolumn = r#"{"name":"Description","type":"string","jsonPath":".spec.description"}"#)]
pub struct DiskStorageClassSpec {
    /// The purpose of the class.
    pub description: String,
}

/// A size of virtual machine.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "compute.evroclabs.net",
    version = "v1alpha1",
    kind = "VMVirtualResources",
    plural = "vmvirtualresources",
    singular = "vmvirtualresources"
)]
#[kube(printcolumn = r#"{"name":"vCPUs","type":"integer","jsonPath":".spec.vCPUs"}"#)]
#[kube(printcolumn = r#"{"name":"Memory","type":"integer","jsonPath":".spec.memory.amount"}"#)]
#[kube(printcolumn = r#"{"name":"Unit","type":"string","jsonPath":".spec.memory.unit"}"#)]
#[kube(printcolumn = r#"{"name":"Architecture","type":"string","jsonPath":".spec.processorArchitecture"}"#)]
#[serde(rename_all = "camelCase")]
pub struct VMVirtualResourcesSpec {
    /// Virtual processors.
    #[serde(rename = "vCPUs")]
    pub vcpus: u32,
    /// Memory.
    pub memory: Size,
    /// The processor architecture, `amd64`.
    pub processor_architecture: String,
}

/// The sizes every cloud starts with: name, virtual processors, memory. Memory a processor: a1a 4 GB, c1a 2 GB, m1a 8 GB.
pub fn profiles() -> Vec<(String, VMVirtualResourcesSpec)> {
    let profile = |name: &str, vcpus: u32, amount: i64, unit: Unit| {
        (
            name.to_owned(),
            VMVirtualResourcesSpec { vcpus, memory: Size { amount, unit }, processor_architecture: "amd64".into() },
        )
    };
    let sizes: [(&str, u32); 6] = [("xs", 1), ("s", 2), ("m", 4), ("l", 8), ("xl", 16), ("2xl", 32)];
    let not_offered = ["c1a.xs", "m1a.xs", "m1a.2xl"];
    let mut all = vec![profile("test.xs", 1, 512, Unit::MB)];
    for (series, gigabytes_per_vcpu) in [("a1a", 4), ("c1a", 2), ("m1a", 8)] {
        for (size, vcpus) in sizes {
            let name = format!("{series}.{size}");
            if !not_offered.contains(&name.as_str()) {
                all.push(profile(&name, vcpus, i64::from(vcpus) * gigabytes_per_vcpu, Unit::GB));
            }
        }
    }
    all
}
