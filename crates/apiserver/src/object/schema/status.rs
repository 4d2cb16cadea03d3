//! Field errors as the `Status` object of a 422 response.

use super::FieldError;
use crate::object::go_text::go_quote;
use serde_json::{Value, json};
use std::collections::HashSet;

/// `VirtualMachine.compute.evroclabs.net "x" is invalid: [a, b]`.
pub fn invalid_message(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> String {
    let qualified = qualified(group, kind);
    format!("{qualified} {} is invalid: {}", go_quote(name), aggregate(errors))
}

/// Joins errors into one text: several are in brackets, duplicates occur once.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut seen = HashSet::new();
    let lines: Vec<String> = errors.iter().map(ToString::to_string).filter(|line| seen.insert(line.clone())).collect();
    match lines.as_slice() {
        [] => "<nil>".to_string(),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// `details.causes` for the errors.
pub fn causes(errors: &[FieldError]) -> Value {
    errors.iter().map(|e| json!({"reason": e.reason.as_str(), "message": e.body(), "field": e.path})).collect()
}

/// The whole `Status` object (HTTP 422, reason `Invalid`).
pub fn invalid_status(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Value {
    let mut details = json!({});
    if !name.is_empty() {
        details["name"] = json!(name);
    }
    if !group.is_empty() {
        details["group"] = json!(group);
    }
    details["kind"] = json!(kind);
    if !errors.is_empty() {
        details["causes"] = causes(errors);
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": invalid_message(group, kind, name, errors),
        "reason": "Invalid", "details": details, "code": 422,
    })
}

fn qualified(group: &str, kind: &str) -> String {
    if group.is_empty() { kind.to_string() } else { format!("{kind}.{group}") }
}
