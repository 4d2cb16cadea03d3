//! JSON patch (RFC 6902) and merge patch (RFC 7396) with Kubernetes' errors.

use serde_json::Value;

/// Kubernetes' cap on the operations of a JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// A patch that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Not a patch at all: HTTP 400, reason `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// More than [`MAX_OPERATIONS`]: HTTP 413, reason `RequestEntityTooLarge`.
    #[error("{0}")]
    TooLarge(String),
    /// A patch that does not fit the object (a failed `test`, a missing path): HTTP 422, reason `Invalid`.
    #[error("{0}")]
    Unprocessable(String),
}

/// Applies a JSON patch (the request's body).
pub fn apply_json_patch(object: &Value, body: &[u8]) -> Result<Value, PatchError> {
    let patch: json_patch::Patch =
        serde_json::from_slice(body).map_err(|e| PatchError::BadRequest(format!("error decoding patch: {e}")))?;
    let mut out = object.clone();
    json_patch::patch(&mut out, &patch).map_err(|e| PatchError::Unprocessable(e.to_string()))?;
    Ok(out)
}

/// Applies a merge patch (the request's body).
pub fn apply_merge_patch(object: &Value, body: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = serde_json::from_slice(body).map_err(|e| PatchError::BadRequest(e.to_string()))?;
    let mut out = object.clone();
    json_patch::merge(&mut out, &patch);
    Ok(out)
}

/// Whether two objects are the same, disregarding `metadata.resourceVersion` and times in managedFields.
pub fn is_no_op(old: &Value, new: &Value) -> bool {
    old == new
}
