//! Parameters of requests for streams.

use evroc_apiserver::{ApiError, ConnectRequest};

/// The value of a parameter, as it was sent.
fn parameter<'a>(stream_request: &'a ConnectRequest, name: &str) -> Option<&'a str> {
    let query = stream_request.request.uri().query().unwrap_or_default();
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Whether a parameter is `true`.
pub(super) fn flag(stream_request: &ConnectRequest, name: &str) -> bool {
    parameter(stream_request, name) == Some("true")
}

/// A number of 0 or more.
pub(super) fn number(stream_request: &ConnectRequest, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = parameter(stream_request, name) else { return Ok(None) };
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| ApiError::bad_request(format!("{name}: expected a number of 0 or more, found {text:?}")))
}

/// A time in the form of RFC 3339.
pub(super) fn time(stream_request: &ConnectRequest, name: &str) -> Result<Option<jiff::Timestamp>, ApiError> {
    let Some(text) = parameter(stream_request, name) else { return Ok(None) };
    let parsed = text.replace("%3A", ":").replace("%2B", "+").parse().map(Some);
    parsed.map_err(|_| {
        ApiError::bad_request(format!("{name}: expected a time as in 2026-01-02T03:04:05.6Z, found {text:?}"))
    })
}

/// The port of a port forward.
pub(super) fn port(stream_request: &ConnectRequest) -> Result<u16, ApiError> {
    let text = parameter(stream_request, "port").unwrap_or_default();
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| {
        ApiError::bad_request(format!(
            "port: expected a number from 1 to 65535, as in portforward?port=22, found {text:?}"
        ))
    })
}
