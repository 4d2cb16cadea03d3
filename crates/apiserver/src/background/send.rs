//! Requests of the server's own controllers, which go through the API like those of other clients.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tower::ServiceExt;

use crate::http::server::IdentityService;
use crate::object::registry::Registered;

/// Returns the path of an object, or of a collection if the name is empty.
pub(crate) fn path_of(registered: &Registered, namespace: &str, name: &str, subresource: &str) -> String {
    let kind = &registered.kind;
    let mut path = if kind.group.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", kind.group) };
    path.push_str(&kind.version);
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    for part in [&kind.plural, name, subresource] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    path
}

/// Sends a request and reads the response.
pub(crate) async fn send(
    service: &IdentityService,
    method: Method,
    path: &str,
    media_type: &str,
    body: &Value,
) -> Result<(StatusCode, Value), String> {
    let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, media_type)
        .body(Full::new(bytes))
        .map_err(|error| error.to_string())?;
    let response = match service.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let code = response.status();
    let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// Returns the response's message as an error unless the code is one of the expected ones.
pub(crate) fn expect(code: StatusCode, answer: &Value, expected: &[StatusCode]) -> Result<(), String> {
    if expected.contains(&code) {
        return Ok(());
    }
    Err(format!("{code}: {}", answer["message"].as_str().unwrap_or_default()))
}
