//! Namespaces: boundaries of tenants, managed by operators only.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{age, column, object, schema, string};
use crate::object::field_error::FieldError;
use crate::object::kind::{ResourceKind, Scope, Subresources};

pub(super) fn namespace() -> ResourceKind {
    let condition = object(
        "One aspect of the namespace's state.",
        json!({
            "type": string("Which aspect."),
            "status": string("True, False or Unknown."),
            "reason": string("Why, in one word."),
            "message": string("The reason as text."),
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        }),
    );
    let mut kind = ResourceKind::new(
        "",
        "v1",
        "Namespace",
        "namespaces",
        schema(
            "A name space for objects.",
            json!({
                "spec": object("What the life-cycle waits for.", json!({
                    "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "atomic"},
                })),
                "status": object("Where it is in its life-cycle.", json!({
                    "phase": string("Active or Terminating."),
                    "conditions": {"type": "array", "items": condition, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
                })),
            }),
        ),
    );
    kind.scope = Scope::Cluster;
    kind.short_names = vec!["ns".into()];
    kind.subresources = Subresources { status: true, scale: None };
    kind.columns = vec![column("Status", "string", ".status.phase", 0), age()];
    kind.selectable_fields = vec![".status.phase".into()];
    kind.has_generation = false;
    kind.validate = Some(Arc::new(|object, _| label_name(object)));
    kind
}

/// Checks that the name is a DNS label: no dots, at most 63 characters.
fn label_name(object: &Value) -> Vec<FieldError> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if name.len() <= 63 && !name.contains('.') {
        return Vec::new();
    }
    let detail = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?') and at most 63 characters";
    vec![FieldError::invalid("metadata.name", name.into(), detail)]
}
