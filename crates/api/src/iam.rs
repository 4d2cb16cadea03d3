//! `iam.evroclabs.net`: organisations, resource groups and revoked credentials.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{self, LONGEST_LABEL, NameRule};
use crate::rules::{Function, Immutable, KindRules, Problem};

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

impl KindRules for RevokedCredential {
    const NAMES: NameRule = NameRule::ANY;
    const IMMUTABLE: &'static [Immutable] =
        &[Immutable { path: "", message: "a revocation cannot be changed: make another one" }];
    const PROBLEMS: Function<Self, Problem> = Some(|revoked| {
        let spec = &revoked.spec;
        match (&spec.certificate_serial, &spec.token_id) {
            (Some(_), None) | (None, Some(_)) => Vec::new(),
            _ => vec![Problem::new("spec", "expected either certificateSerial or tokenID")],
        }
    });
    const REVOKES: Function<Self, String> = Some(|revoked| {
        let serial = revoked
            .spec
            .certificate_serial
            .as_deref()
            .map(|serial| serial.replace(':', "").trim_start_matches('0').to_ascii_lowercase());
        serial.into_iter().chain(revoked.spec.token_id.clone()).collect()
    });
}

/// A credential that is not accepted any more although its time has not ended: by the API, the registry, and streams that run.
/// The revocation holds for as long as this object exists.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "iam.evroclabs.net", version = "v1alpha1", kind = "RevokedCredential", plural = "revokedcredentials")]
#[kube(printcolumn = r#"{"name":"Certificate","type":"string","jsonPath":".spec.certificateSerial"}"#)]
#[kube(printcolumn = r#"{"name":"Token","type":"string","jsonPath":".spec.tokenID"}"#)]
#[kube(printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".spec.reason"}"#)]
#[kube(printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#)]
#[serde(rename_all = "camelCase")]
pub struct RevokedCredentialSpec {
    /// The serial number of a client certificate, hexadecimal, as in the audit log or as `openssl x509 -noout -serial` prints it.
    /// Tokens that were made with the certificate are revoked with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::CERTIFICATE_SERIAL))]
    pub certificate_serial: Option<String>,
    /// The id of a token for the API or the registry, as in the audit log.
    #[serde(rename = "tokenID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = names::TOKEN_ID))]
    pub token_id: Option<String>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
