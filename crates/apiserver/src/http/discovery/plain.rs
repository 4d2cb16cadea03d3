//! Plain discovery: one document per group and per version.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::http::respond;
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;
use crate::object::registry::{Registered, Registry};

/// The verbs of a stored kind.
pub(super) const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// Returns the verbs of a kind.
pub(super) fn verbs(registered: &Registered) -> &'static [&'static str] {
    if registered.kind.answer.is_some() { &["create"] } else { &VERBS }
}

/// A subresource in discovery.
pub(super) struct Subresource<'a> {
    pub(super) name: &'a str,
    /// Group, version, kind; of the kind itself if `None`.
    pub(super) kind: Option<(&'static str, &'static str, &'static str)>,
    pub(super) verbs: &'static [&'static str],
}

/// Returns the subresources of a kind.
pub(super) fn subresources(registered: &Registered) -> Vec<Subresource<'_>> {
    const READ_WRITE: &[&str] = &["get", "patch", "update"];
    let kind = &registered.kind;
    let mut found: Vec<Subresource<'_>> = Vec::new();
    if kind.subresources.status {
        found.push(Subresource { name: "status", kind: None, verbs: READ_WRITE });
    }
    if kind.subresources.scale.is_some() {
        found.push(Subresource { name: "scale", kind: Some(("autoscaling", "v1", "Scale")), verbs: READ_WRITE });
    }
    if registered.is_namespace() {
        found.push(Subresource { name: "finalize", kind: None, verbs: &["update"] });
    }
    let streams = kind.connect.keys().map(|name| Subresource { name, kind: None, verbs: &["create", "get"] });
    found.extend(streams);
    found
}

/// `/api`.
pub(super) fn core_versions(registry: &Registry) -> Value {
    let versions: Vec<&str> = registry
        .groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty())
        .flat_map(|(_, versions)| versions)
        .collect();
    json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub(super) fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = registry
        .groups()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_document(group, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_document(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

/// `/apis/<group>`.
pub(super) fn group(registry: &Registry, group: &str) -> Result<Response<ResponseBody>, ApiError> {
    let (name, versions) = registry
        .groups()
        .into_iter()
        .find(|(name, _)| *name == group && !name.is_empty())
        .ok_or_else(ApiError::no_such_path)?;
    let mut document = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Value::Object(document), Value::Object(fields)) = (&mut document, group_document(name, &versions)) {
        document.extend(fields);
    }
    Ok(respond::json(StatusCode::OK, &document))
}

/// `/api/<version>` and `/apis/<group>/<version>`.
pub(super) fn resources(registry: &Registry, group: &str, version: &str) -> Result<Response<ResponseBody>, ApiError> {
    let mut resources = Vec::new();
    for registered in registry.of_version(group, version) {
        let kind = &registered.kind;
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.is_namespaced(),
            "kind": kind.kind,
            "verbs": verbs(registered),
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        if kind.answer.is_none() {
            resource["storageVersionHash"] = json!(storage_hash(registered));
        }
        resources.push(resource);
        for sub in subresources(registered) {
            let mut resource = json!({
                "name": format!("{}/{}", kind.plural, sub.name),
                "singularName": "",
                "namespaced": kind.is_namespaced(),
                "kind": sub.kind.map_or(kind.kind.as_str(), |(_, _, kind)| kind),
                "verbs": sub.verbs,
            });
            if let Some((group, version, _)) = sub.kind {
                resource["group"] = json!(group);
                resource["version"] = json!(version);
            }
            resources.push(resource);
        }
    }
    if resources.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let document =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources});
    Ok(respond::json(StatusCode::OK, &document))
}

/// Returns the identifier of a kind's stored form: eight bytes of a hash in base64, as in Kubernetes.
fn storage_hash(registered: &Registered) -> String {
    use base64::Engine;
    use sha2::{Digest, Sha256};
    let kind = &registered.kind;
    let digest = Sha256::digest(format!("{}/{}/{}", kind.group, kind.version, kind.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}
