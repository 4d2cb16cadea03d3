//! The published OpenAPI documents: v3 per group-version, its index, and v2; as JSON and as protobuf.
//!
//! Both documents are built from the same neutral parts ([`operations`], [`definitions`]) in which a reference is `{"$ref":
//! NAME}` and may have siblings; each version writes references in its own form.

mod definitions;
mod operations;
mod proto;
mod proto_v2;
mod proto_v3;
mod v2;
mod v3;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

/// The facts about a kind that the documents need.
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
    /// Whether it has a scale subresource.
    pub has_scale: bool,
    /// Subresources that are streams or responses of other programs: `console`.
    pub connects: Vec<&'a str>,
    /// JSON paths of the selectable fields: `.spec.running`.
    pub selectable: Vec<&'a str>,
}

impl KindInfo<'_> {
    /// `net.evroclabs.compute.v1alpha1.VirtualMachine`: group reversed, so that names sort like packages.
    fn model_name(&self, kind: &str) -> String {
        if self.group.is_empty() {
            return format!("io.k8s.api.core.{}.{kind}", self.version);
        }
        let group: Vec<&str> = self.group.split('.').rev().collect();
        format!("{}.{}.{kind}", group.join("."), self.version)
    }

    fn gvk(&self, kind: &str) -> Value {
        json!({"group": self.group, "kind": kind, "version": self.version})
    }
}

/// Media type of the v2 protobuf document.
pub const V2_PROTO: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Media type of the v3 protobuf document.
pub const V3_PROTO: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// The v3 document of one group-version (all kinds given must be of it).
pub fn v3_document(title: &str, server_version: &str, kinds: &[KindInfo<'_>]) -> Value {
    v3::document(title, server_version, kinds)
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
    v2::document(title, server_version, kinds)
}

/// A v2 document as gnostic's protobuf message.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    proto::encode(document, &proto_v2::DOCUMENT)
}

/// A v3 document as gnostic's protobuf message.
pub fn v3_protobuf(document: &Value) -> Vec<u8> {
    proto::encode(document, &proto_v3::DOCUMENT)
}

/// The hash of a document, for the index and the ETag: SHA-512 in upper-case hex as Kubernetes has it.
pub fn hash(document: &[u8]) -> String {
    use sha2::{Digest, Sha512};
    Sha512::digest(document).iter().map(|b| format!("{b:02X}")).collect()
}
