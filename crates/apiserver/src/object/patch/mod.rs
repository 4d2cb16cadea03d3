//! JSON patch (RFC 6902) and merge patch (RFC 7396) with the behaviour of Kubernetes' library where that differs from the
//! RFCs: negative indices count from the end, a merge patch also drops nulls from objects inside new lists, and `test` of a
//! missing field holds against null.

mod json;
mod merge;

pub use json::{MAX_COPIED_BYTES, MAX_MOVED};

#[cfg(test)]
mod tests;

use crate::object::go_text::go_quote;
use crate::object::problems::Problems;
use crate::object::schema::decode::decode_strict;
use serde_json::Value;
use std::collections::HashSet;

/// Kubernetes' cap on the operations of a JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// The message to clients for a patch that does not fit the object.
pub const UNPROCESSABLE: &str = "the server rejected our request due to an error in our request";

/// A patch that cannot be applied. `Display` is the `message` of the Status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Not a patch at all: HTTP 400, reason `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// More than [`MAX_OPERATIONS`]: HTTP 413, reason `RequestEntityTooLarge`.
    #[error("{0}")]
    TooLarge(String),
    /// A patch that does not fit the object (a failed `test`, a missing path): HTTP 422, reason `Invalid`, empty details. The
    /// text says why; Kubernetes does not send it to clients.
    #[error("{UNPROCESSABLE}")]
    Unprocessable(String),
}

fn decode(body: &[u8]) -> Result<Value, PatchError> {
    let error = |e: &dyn std::error::Error| {
        let cause = e.source().map(|s| s.to_string()).unwrap_or_else(|| e.to_string());
        let is_cut_off = cause.starts_with("EOF while parsing");
        let cause = if is_cut_off { "unexpected end of JSON input".to_string() } else { cause };
        PatchError::BadRequest(format!("error decoding patch: {cause}"))
    };
    decode_strict(body).map(|(value, _)| value).map_err(|e| error(&e))
}

/// Applies a JSON patch (the request's body).
///
/// # Errors
/// See [`PatchError`]; the object is unchanged then.
pub fn apply_json_patch(object: &Value, body: &[u8]) -> Result<Value, PatchError> {
    let patch = match decode(body)? {
        Value::Null => Value::Array(Vec::new()),
        patch => patch,
    };
    let Value::Array(operations) = patch else {
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
            json_kind(&patch)
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    if let Some(other) = operations.iter().find(|o| !o.is_object()) {
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp",
            json_kind(other)
        )));
    }
    operations.iter().try_for_each(json::check).map_err(PatchError::BadRequest)?;
    let mut work = json::Work::on(object);
    for operation in &operations {
        work.apply(operation).map_err(PatchError::Unprocessable)?;
    }
    work.finish().map_err(PatchError::Unprocessable)
}

/// Applies a merge patch (the request's body).
///
/// # Errors
/// If the body is not a JSON object.
pub fn apply_merge_patch(object: &Value, body: &[u8]) -> Result<Value, PatchError> {
    let patch = decode(body)?;
    if !patch.is_object() {
        return Err(PatchError::BadRequest(match patch {
            Value::Null => "Invalid JSON Patch".to_string(),
            other => format!(
                "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                json_kind(&other)
            ),
        }));
    }
    let mut out = object.clone();
    merge::merge(&mut out, patch);
    Ok(out)
}

/// Returns the problems that strict decoding finds in a JSON patch itself: duplicate and unknown fields of its operations. The
/// caller adds those of the patched object.
pub fn json_patch_problems(body: &[u8]) -> Vec<String> {
    let mut out = Problems::default();
    for (i, Keys(keys)) in serde_json::from_slice::<Vec<Keys>>(body).unwrap_or_default().into_iter().enumerate() {
        let mut seen = HashSet::new();
        for key in &keys {
            let at = || go_quote(&format!("[{i}].{key}"));
            if !seen.insert(key) {
                out.add(|| format!("json patch duplicate field {}", at()));
            } else if !matches!(key.as_str(), "op" | "path" | "from" | "value") {
                out.add(|| format!("json patch unknown field {}", at()));
            }
        }
    }
    out.into_paths()
}

/// The keys of an object as written: in order, with duplicates.
struct Keys(Vec<String>);

impl<'de> serde::Deserialize<'de> for Keys {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> serde::de::Visitor<'de> for Reader {
            type Value = Keys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Returns the problems that strict decoding finds in a merge patch itself: duplicate fields.
pub fn merge_patch_problems(body: &[u8]) -> Vec<String> {
    let Ok((_, duplicates)) = decode_strict(body) else { return Vec::new() };
    duplicates.iter().map(|d| format!("duplicate field {}", go_quote(&d.path))).collect()
}

/// Whether two objects are equal except for `metadata.resourceVersion` and times in managedFields. A write that changes nothing
/// else must not be stored.
pub fn is_no_op(old: &Value, new: &Value) -> bool {
    let normalise = |object: &Value| {
        let mut object = object.clone();
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.shift_remove("resourceVersion");
            for entry in meta.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
                entry.as_object_mut().map(|e| e.shift_remove("time"));
            }
        }
        object
    };
    old == new || normalise(old) == normalise(new)
}

pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
