//! Responses: objects in the requested shape and encoding, errors, warnings.

mod gzip;
pub(crate) mod shape;

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::http::request::RequestInfo;
use crate::http::request::negotiate::Encoding;
use crate::object::body::{self, ResponseBody};
use crate::object::error::{ApiError, Named};
use crate::object::identity::Identity;

pub(crate) use gzip::compress;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Returns a response with JSON bytes.
pub(crate) fn json_bytes(code: StatusCode, bytes: Bytes) -> Response<ResponseBody> {
    with_type(code, JSON, body::full(bytes))
}

/// Returns a response with a body of a media type.
pub(crate) fn with_type(code: StatusCode, media_type: HeaderValue, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// Returns a response with a value as JSON.
pub(crate) fn json(code: StatusCode, value: &Value) -> Response<ResponseBody> {
    // Serialising a value cannot fail.
    json_bytes(code, serde_json::to_vec(value).unwrap_or_default().into())
}

/// Returns a response with a value in the requested encoding.
pub(crate) fn value(code: StatusCode, value: &Value, encoding: Encoding) -> Result<Response<ResponseBody>, ApiError> {
    match encoding {
        Encoding::Json => Ok(json(code, value)),
        Encoding::Yaml => {
            let mut sorted = value.clone();
            sorted.sort_all_objects();
            let text = serde_saphyr::to_string(&sorted).map_err(ApiError::internal)?;
            Ok(with_type(code, HeaderValue::from_static("application/yaml"), body::full(text)))
        }
    }
}

/// Returns the response for an error.
pub(crate) fn error(error: &ApiError, encoding: Encoding) -> Response<ResponseBody> {
    let status = error.to_status();
    let mut response = value(error.code, &status, encoding).unwrap_or_else(|_| json(error.code, &status));
    add_warnings(response.headers_mut(), &error.warnings);
    if error.retry_after_seconds > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(error.retry_after_seconds));
    }
    response
}

/// Returns the 403 for a denied request, in Kubernetes' wording.
pub(crate) fn forbidden(identity: &Identity, info: &RequestInfo, reason: &str) -> ApiError {
    let suffix = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !info.is_resource {
        let message =
            format!("forbidden: User {:?} cannot {} path {:?}{suffix}", identity.user, info.verb, info.path());
        return ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message);
    }
    let resource = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    let place = if info.shown_namespace().is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", info.shown_namespace())
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {place}{suffix}",
        identity.user, info.verb, info.group
    );
    ApiError::forbidden(Named { group: &info.group, resource: &info.resource, name: &info.name }, why)
}

/// Adds a warning header (agent code 299) for each text.
pub(crate) fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    // Duplicates are dropped, as in Kubernetes.
    let mut seen = HashSet::new();
    for warning in warnings.iter().filter(|it| seen.insert(it.as_str())) {
        let escaped: String = warning
            .chars()
            .filter(|it| !it.is_control())
            .flat_map(|it| if matches!(it, '"' | '\\') { vec!['\\', it] } else { vec![it] })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            headers.append(header::WARNING, value);
        }
    }
}
