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

/// Characters of all warnings of an answer, and of each of them once they would be more: clients stop reading at some 64 KB of headers.
/// The figures are those of Kubernetes.
const WARNING_CHARS: usize = 4 * 1024;
const CLIPPED_WARNING_CHARS: usize = 256;

/// Adds a warning header (agent code 299) for each text.
pub(crate) fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in fitting(warnings) {
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

/// Each warning once, in full if all of them fit, else clipped and as many as fit.
fn fitting(warnings: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    let distinct: Vec<&str> = warnings.iter().map(String::as_str).filter(|it| seen.insert(*it)).collect();
    if distinct.iter().map(|it| it.chars().count()).sum::<usize>() <= WARNING_CHARS {
        return distinct;
    }
    let clip = |text: &'_ str| text.char_indices().nth(CLIPPED_WARNING_CHARS).map_or(text.len(), |(end, _)| end);
    let mut chars = 0;
    let fits = |text: &&str| {
        let is_room = chars < WARNING_CHARS;
        chars += text.chars().count();
        is_room
    };
    distinct.into_iter().map(|text| &text[..clip(text)]).take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_warnings_are_clipped_and_then_left_out() {
        let few = vec!["a".repeat(1_000), "b".into(), "b".into()];
        assert_eq!(fitting(&few), [few[0].as_str(), "b"], "each once, in full");
        let long = vec!["ä".repeat(5_000), "b".into()];
        assert_eq!(fitting(&long), ["ä".repeat(256).as_str(), "b"]);
        let many: Vec<String> = (0..10_000).map(|number| format!("unknown field \"spec.field{number}\"")).collect();
        let mut headers = HeaderMap::new();
        add_warnings(&mut headers, &many);
        let bytes: usize = headers.values().map(HeaderValue::len).sum();
        assert!((4_096..8_192).contains(&bytes), "{bytes}");
    }
}
