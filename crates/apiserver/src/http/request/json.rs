//! Bodies in JSON.

use serde_json::Value;

use crate::object::error::ApiError;
use crate::object::schema::decode::{DecodeError, decode_strict};

/// Decodes JSON; also returns the paths of duplicate fields.
///
/// # Errors
/// 400 for what cannot be read.
pub fn decode_json(body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let (value, duplicates) = decode_strict(body).map_err(|error| {
        let problem = match &error {
            DecodeError::Json(cause) if cause.is_eof() => "unexpected end of JSON input".to_owned(),
            DecodeError::Json(cause) => cause.to_string(),
            other => other.to_string(),
        };
        ApiError::bad_request(format!("couldn't get version/kind; json parse error: {problem}"))
    })?;
    Ok((value, duplicates.into_iter().map(|it| it.path).collect()))
}
