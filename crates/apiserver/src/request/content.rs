//! Bodies of requests: their size, their type, their fields.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use serde_json::Value;

use super::protobuf;
use super::query::FieldValidation;
use crate::body::RequestBody;
use crate::error::ApiError;
use crate::schema::decode::decode_strict;

/// Kubernetes' limit on the body of a request.
pub const BODY_LIMIT: usize = 3 << 20;

/// Reads a body of at most [`BODY_LIMIT`].
///
/// # Errors
/// 413 beyond it, 400 if the connection fails.
pub async fn read(mut body: RequestBody) -> Result<Bytes, ApiError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("reading the body failed: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > BODY_LIMIT {
                return Err(ApiError::too_large(BODY_LIMIT));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// The media type of the body, in lower case and without parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(http::header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

const ACCEPTED: &str = "application/json, application/yaml";

/// Reads JSON or YAML into a value; says which fields occur twice.
///
/// # Errors
/// 415 for other types, 400 for what cannot be read.
pub fn decode_object(headers: &HeaderMap, body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    match media_type(headers).as_str() {
        "" | "application/json" | "*/*" => decode_json(body),
        "application/yaml" | "text/yaml" => Ok((decode_yaml(body)?, Vec::new())),
        // Of the kinds that have one; for others it is as unknown as anything else.
        "application/vnd.kubernetes.protobuf" => match protobuf::decode(body) {
            Some(object) => Ok((object, Vec::new())),
            None => Err(ApiError::unsupported_media_type(ACCEPTED)),
        },
        _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
    }
}

/// Reads JSON.
///
/// # Errors
/// 400 for what cannot be read.
pub fn decode_json(body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let (value, duplicates) = decode_strict(body).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}{cause}"))
    })?;
    Ok((value, duplicates.into_iter().map(|it| it.path).collect()))
}

/// Reads YAML (which JSON is).
///
/// # Errors
/// 400 for what cannot be read.
pub fn decode_yaml(body: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("yaml: the body is not UTF-8"))?;
    serde_saphyr::from_str(text).map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))
}

/// Treats unknown and duplicate fields as the client asked for.
///
/// # Errors
/// 400 naming all of them if it asked for strictness.
pub fn report_fields(
    mode: FieldValidation,
    unknown: &[String],
    duplicates: &[String],
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let messages = duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"))
        .chain(unknown.iter().map(|path| format!("unknown field {path:?}")))
        .collect::<Vec<_>>();
    match mode {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings.extend(messages),
        FieldValidation::Strict if messages.is_empty() => {}
        FieldValidation::Strict => {
            return Err(ApiError::bad_request(format!("strict decoding error: {}", messages.join(", "))));
        }
    }
    Ok(())
}
