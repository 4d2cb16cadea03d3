//! `networking.evroclabs.net`: the private network that every resource group has from the start.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{self, NameRule};
use crate::rules::{Function, Immutable, KindRules, Problem};
use crate::subnet_range::{SubnetRange, SubnetRangeError};

impl KindRules for VirtualPrivateCloud {
    const NAMES: NameRule = NameRule::ANY;
}

impl KindRules for Subnet {
    const NAMES: NameRule = NameRule::ANY;
    const IMMUTABLE: &'static [Immutable] = &[
        Immutable { path: "vpcRef", message: "a subnet stays in its VPC: make another subnet" },
        Immutable {
            path: "ipv4CidrBlock",
            message: "the addresses of a subnet cannot be changed: make another subnet",
        },
    ];
    const PROBLEMS: Function<Self, Problem> = Some(|subnet| {
        let error = subnet.spec.range().err();
        error.map(|error| Problem::new("spec.ipv4CidrBlock.block", error.to_string())).into_iter().collect()
    });
}

/// The name of the VPC and of the subnet that come with every resource group.
pub const DEFAULT_NETWORK: &str = "default";
/// The addresses of the default subnet; every VPC has the same ones.
pub const DEFAULT_SUBNET_CIDR: &str = "10.0.0.0/24";

/// A private network. Every resource group has one, `default`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.evroclabs.net",
    version = "v1alpha1",
    kind = "VirtualPrivateCloud",
    plural = "virtualprivateclouds",
    shortname = "vpc",
    namespaced,
    category = "all",
    status = "VirtualPrivateCloudStatus"
)]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
pub struct VirtualPrivateCloudSpec {}

/// The observed state of a VPC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VirtualPrivateCloudStatus {
    /// The state over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A range of addresses in a VPC. Every resource group has one, `default`, 10.0.0.0/24.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.evroclabs.net",
    version = "v1alpha1",
    kind = "Subnet",
    plural = "subnets",
    namespaced,
    category = "all",
    status = "SubnetStatus"
)]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(printcolumn = r#"{"name":"CIDR","type":"string","jsonPath":".spec.ipv4CidrBlock.block"}"#)]
#[kube(printcolumn = r#"{"name":"Used","type":"integer","jsonPath":".status.usingIPv4AddressCount"}"#)]
#[kube(printcolumn = r#"{"name":"Available","type":"integer","jsonPath":".status.availableIPv4AddressCount"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct SubnetSpec {
    /// The VPC that it lies in.
    pub vpc_ref: NameRef,
    /// Its addresses.
    pub ipv4_cidr_block: CidrBlock,
}

impl SubnetSpec {
    /// Its addresses.
    ///
    /// # Errors
    /// If the block is not one that the API accepts; one of an earlier version may not be.
    pub fn range(&self) -> Result<SubnetRange, SubnetRangeError> {
        self.ipv4_cidr_block.block.parse()
    }

    /// Its addresses, of whatever version the object is: earlier ones accepted a block with host bits, which stands for the block that
    /// it lies in.
    ///
    /// # Errors
    /// If the block gives no addresses that guests can have.
    pub fn stored_range(&self) -> Result<SubnetRange, SubnetRangeError> {
        match self.range() {
            Err(SubnetRangeError::NotMasked { expected, .. }) => expected.to_string().parse(),
            other => other,
        }
    }
}

/// A reference by name within the resource group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NameRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = names::SUBDOMAIN))]
    pub name: String,
}

/// A range of IPv4 addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CidrBlock {
    /// The network's address and its prefix length, from 8 to 30: for example `10.0.0.0/24`.
    #[schemars(length(max = 18))]
    pub block: String,
}

/// The observed state of a subnet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubnetStatus {
    /// How many addresses are free.
    #[serde(default, rename = "availableIPv4AddressCount", skip_serializing_if = "Option::is_none")]
    pub available_ipv4_address_count: Option<i64>,
    /// How many addresses are in use.
    #[serde(default, rename = "usingIPv4AddressCount", skip_serializing_if = "Option::is_none")]
    pub using_ipv4_address_count: Option<i64>,
    /// The state over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
