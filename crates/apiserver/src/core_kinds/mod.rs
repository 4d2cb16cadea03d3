//! The built-in kinds that clients expect of any cluster. Never Services (Run has its own) and never Pods.

mod config;
mod event;
mod lease;
mod namespace;
mod quota;
mod review;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::http::authz::Authorize;
use crate::object::kind::{PrinterColumn, ResourceKind};

/// Returns all core kinds.
pub(crate) fn all(authorizer: Arc<dyn Authorize>) -> Vec<ResourceKind> {
    let mut kinds = vec![
        namespace::namespace(),
        config::config_map(),
        config::secret(),
        event::core(),
        event::events_group(),
        lease::lease(),
        quota::resource_quota(),
        review::self_subject_access_review(authorizer.clone()),
        review::self_subject_rules_review(authorizer),
        review::self_subject_review(),
    ];
    for kind in &mut kinds {
        kind.is_typed = true;
    }
    kinds
}

fn string(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn micro_time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description, "nullable": true})
}

fn string_map(description: &str) -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}, "description": description})
}

fn object(description: &str, properties: Value) -> Value {
    json!({"type": "object", "description": description, "properties": properties})
}

/// Returns the schema of a kind: its type fields and `properties`.
fn schema(description: &str, mut properties: Value) -> Value {
    properties["apiVersion"] = string("Version of the schema of this object.");
    properties["kind"] = string("Kind of this object.");
    properties["metadata"] = json!({"type": "object"});
    object(description, properties)
}

fn object_reference(description: &str) -> Value {
    object(
        description,
        json!({
            "kind": string("Kind of the referent."),
            "namespace": string("Namespace of the referent."),
            "name": string("Name of the referent."),
            "uid": string("UID of the referent."),
            "apiVersion": string("API version of the referent."),
            "resourceVersion": string("Revision of the referent."),
            "fieldPath": string("A part of the referent."),
        }),
    )
}

fn column(name: &str, column_type: &str, path: &str, priority: i32) -> PrinterColumn {
    PrinterColumn {
        name: name.into(),
        column_type: column_type.into(),
        format: String::new(),
        description: String::new(),
        priority,
        json_path: path.into(),
    }
}

fn age() -> PrinterColumn {
    column("Age", "date", ".metadata.creationTimestamp", 0)
}
