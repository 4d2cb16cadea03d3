//! `iam.evroclabs.net`: organisations and resource groups.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{self, LONGEST_LABEL, NameRule};
use crate::rules::{Immutable, KindRules};

impl KindRules for Organization {
    const NAMES: NameRule = NameRule::ANY;
}

impl KindRules for ResourceGroup {
    const NAMES: NameRule = NameRule::label(LONGEST_LABEL, "the name becomes that of the group's namespace");
    const IMMUTABLE: &'static [Immutable] = &[Immutable {
        path: "organization",
        message: "organization cannot be changed: make a new resource group in the other organization",
    }];
}

/// A customer: the owner of resource groups.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "iam.evroclabs.net",
    version = "v1alpha1",
    kind = "Organization",
    plural = "organizations",
    shortname = "org",
    status = "OrganizationStatus"
)]
#[kube(printcolumn = r#"{"name":"Display name","type":"string","jsonPath":".spec.displayName"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct OrganizationSpec {
    /// The name shown to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// The observed state of an organisation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrganizationStatus {
    /// The state over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The tenant boundary: one namespace, one VPC with one subnet.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "iam.evroclabs.net",
    version = "v1alpha1",
    kind = "ResourceGroup",
    plural = "resourcegroups",
    shortname = "rg",
    status = "ResourceGroupStatus"
)]
#[kube(selectable = ".spec.organization")]
#[kube(
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#
)]
#[kube(printcolumn = r#"{"name":"Organization","type":"string","jsonPath":".spec.organization"}"#)]
#[kube(printcolumn = r#"{"name":"Namespace","type":"string","jsonPath":".status.namespace"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct ResourceGroupSpec {
    /// The organisation that it belongs to; cannot be changed.
    #[schemars(regex(pattern = names::SUBDOMAIN))]
    pub organization: String,
    /// The name shown to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// The observed state of a resource group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceGroupStatus {
    /// The namespace of its objects: the group's name where that was free. Never parsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The state over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
