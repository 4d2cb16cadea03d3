//! The published OpenAPI documents: v3 per group-version, its index, and v2; as JSON and as protobuf.

use serde_json::{Value, json};

/// What the documents need to know of a kind.
#[derive(Debug, Clone)]
pub struct KindInfo<'a> {
    /// API group, `""` for core.
    pub group: &'a str,
    /// `v1alpha1`.
    pub version: &'a str,
    /// `VirtualMachine`.
    pub kind: &'a str,
    /// `VirtualMachineList`.
    pub list_kind: &'a str,
    /// `virtualmachines`.
    pub plural: &'a str,
    /// `virtualmachine`.
    pub singular: &'a str,
    /// Whether it lives in namespaces.
    pub namespaced: bool,
    /// Its `openAPIV3Schema`.
    pub schema: &'a Value,
    /// Whether it has a status subresource.
    pub has_status: bool,
    /// JSON paths of the selectable fields: `.spec.running`.
    pub selectable: Vec<&'a str>,
}

/// Media type of the v2 protobuf document.
pub const V2_PROTO: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Media type of the v3 protobuf document.
pub const V3_PROTO: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// The v3 document of one group-version (all kinds given must be of it).
pub fn v3_document(title: &str, server_version: &str, kinds: &[KindInfo<'_>]) -> Value {
    let _ = kinds;
    json!({"openapi": "3.0.0", "info": {"title": title, "version": server_version}, "paths": {}, "components": {"schemas": {}}})
}

/// `/openapi/v3`: path of a group-version (`apis/compute.evroclabs.net/v1alpha1`, `api/v1`) to the hash of its document.
pub fn v3_index(documents: &[(String, String)]) -> Value {
    let paths: serde_json::Map<String, Value> = documents
        .iter()
        .map(|(path, hash)| (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")})))
        .collect();
    json!({"paths": paths})
}

/// The v2 (Swagger) document of all kinds.
pub fn v2_document(title: &str, server_version: &str, kinds: &[KindInfo<'_>]) -> Value {
    let _ = kinds;
    json!({"swagger": "2.0", "info": {"title": title, "version": server_version}, "paths": {}, "definitions": {}})
}

/// A v2 document as gnostic's protobuf message.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    let _ = document;
    Vec::new()
}

/// A v3 document as gnostic's protobuf message.
pub fn v3_protobuf(document: &Value) -> Vec<u8> {
    let _ = document;
    Vec::new()
}

/// The hash of a document, for the index and the ETag: SHA-512 in upper-case hex as Kubernetes has it.
pub fn hash(document: &[u8]) -> String {
    use sha2::{Digest, Sha512};
    Sha512::digest(document).iter().map(|b| format!("{b:02X}")).collect()
}
