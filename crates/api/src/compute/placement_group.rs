//! PlacementGroup: how the virtual machines that name it are distributed over hosts.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placement;
use crate::names::{LONGEST_LABEL, NameRule};
use crate::rules::{Immutable, KindRules};

/// How many virtual machines a placement group has at most. The definition's limit.
pub const MOST_MEMBERS: u64 = 5;

/// The schema for a placement group API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "compute.evroclabs.net",
    version = "v1alpha1",
    kind = "PlacementGroup",
    plural = "placementgroups",
    shortname = "pg",
    namespaced,
    category = "all",
    status = "PlacementGroupStatus"
)]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#
)]
#[kube(printcolumn = r#"{"name":"Strategy","type":"string","jsonPath":".spec.strategy.type"}"#)]
#[kube(printcolumn = r#"{"name":"Zone","type":"string","jsonPath":".status.placement.zone"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct PlacementGroupSpec {
    /// The placement strategy, which determines how the virtual machines inside the placement group are distributed.
    #[serde(default)]
    #[schemars(default)]
    pub strategy: PlacementStrategy,
    /// The placement of the group. Without a zone it is in the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

impl KindRules for PlacementGroup {
    const NAMES: NameRule = NameRule::label(LONGEST_LABEL, "VMs refer to the placement group by a name of this form");
    const IMMUTABLE: &'static [Immutable] = &[Immutable {
        path: "placement.zone",
        message: "the zone of a placement group cannot be changed: make a new placement group",
    }];
}

/// The strategy for the distribution of virtual machines across hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacementStrategy {
    /// The strategy's name. There is one: `spread` runs each virtual machine on another host. A virtual machine for which there is no
    /// host left waits until there is one.
    #[serde(rename = "type", default)]
    #[schemars(default)]
    pub type_: PlacementStrategyType,
}

/// The names of the placement strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PlacementStrategyType {
    /// Each virtual machine on another host.
    #[default]
    Spread,
}

/// The observed state of a placement group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementGroupStatus {
    /// The state of the placement group over time; Ready=True when virtual machines can use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The virtual machines that name the group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_machines: Vec<VirtualMachineMemberStatus>,
    /// The placement of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

/// A virtual machine of a placement group, and whether it was scheduled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineMemberStatus {
    /// Name of the virtual machine.
    pub name: String,
    /// Whether it has a host of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<bool>,
    /// Why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
