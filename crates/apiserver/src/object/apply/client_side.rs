//! Migration from client-side apply: an annotation records what `kubectl apply` wrote, and the same kubectl may take over those
//! fields with `--server-side` without a conflict.

use super::compare::{compare, fields_of};
use super::set::FieldSet;
use super::types::Ty;
use crate::object::go_text::go_json;
use serde_json::Value;

/// The manager name that kubectl uses for server-side apply.
pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

fn last_applied(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()
}

/// Returns the fields that client-side apply wrote and that still have the value it wrote.
pub(super) fn allowed_conflicts(live: &Value, ty: Ty<'_>, api_version: &str) -> Option<FieldSet> {
    let last: Value = serde_json::from_str(last_applied(live)?).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return None;
    }
    super::check::check(&last, ty, super::check::Duplicates::Refused).ok()?;
    let difference = compare(&last, live, ty);
    Some(
        fields_of(&last, ty)
            .difference(&difference.modified)
            .difference(&difference.added)
            .difference(&difference.removed),
    )
}

/// Updates the annotation, so that a later client-side apply knows what to remove.
pub(super) fn renew_annotation(object: &mut Value, applied: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    super::managers::strip(&mut applied);
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(ANNOTATION);
    }
    let text = go_json(&applied) + "\n";
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        if text.len() > crate::object::meta_validate::MAX_ANNOTATIONS_BYTES {
            annotations.shift_remove(ANNOTATION);
        } else {
            annotations.insert(ANNOTATION.to_string(), Value::from(text));
        }
    }
}
