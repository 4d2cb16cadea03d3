//! Bodies of requests: size, media type and fields.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use super::json::decode_json;
use super::protobuf;
use super::yaml::{decode_yaml, duplicate_keys};
use crate::object::body::RequestBody;
use crate::object::error::ApiError;

/// Kubernetes' limit on the body of a request.
pub const BODY_LIMIT: usize = 3 << 20;

/// The time limit for a body. A client that needs longer for 3 MiB occupies a slot for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads a body of at most [`BODY_LIMIT`].
///
/// # Errors
/// 413 beyond it, 408 if it takes too long, 400 if the connection fails.
pub async fn read(body: RequestBody) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIMEOUT, read_all(body)).await {
        Ok(read) => read,
        Err(_) => {
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "Timeout", "the body of the request did not arrive in time"))
        }
    }
}

async fn read_all(mut body: RequestBody) -> Result<Bytes, ApiError> {
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

/// Decodes JSON, YAML or protobuf; also returns the problem of each duplicate field, in Kubernetes' wording.
///
/// # Errors
/// 415 for other types, 400 for what cannot be read.
pub fn decode_object(headers: &HeaderMap, body: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    match media_type(headers).as_str() {
        "" | "application/json" | "*/*" => {
            let (object, duplicates) = decode_json(body)?;
            Ok((object, field_problems(&[], &duplicates)))
        }
        "application/yaml" | "text/yaml" => Ok((decode_yaml(body)?, duplicate_keys(body).into_iter().collect())),
        // Only core kinds have a protobuf form; for others the media type is unknown.
        "application/vnd.kubernetes.protobuf" => match protobuf::decode(body) {
            Some(object) => Ok((object, Vec::new())),
            None => Err(ApiError::unsupported_media_type(super::negotiate::OBJECT_TYPES)),
        },
        _ => Err(ApiError::unsupported_media_type(super::negotiate::OBJECT_TYPES)),
    }
}

/// Returns a body as messages show it: at most 30 bytes, as text if it is an object, else in hexadecimal.
pub fn excerpt(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (shown, more) = if body.len() > SHOWN { (&body[..SHOWN], " ...") } else { (body, "") };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

/// Returns the problems of unknown and duplicate fields, in Kubernetes' wording.
pub fn field_problems(unknown: &[String], duplicates: &[String]) -> Vec<String> {
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
    duplicates.chain(unknown.iter().map(|path| format!("unknown field {path:?}"))).collect()
}
