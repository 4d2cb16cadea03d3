//! Discovery: groups, kinds, schemas, the server's version.

mod aggregated;
pub(crate) mod of_views;
mod openapi;
mod plain;

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::json;

use crate::http::request::{Query, RequestInfo};
use crate::http::respond;
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;
use crate::object::registry::Registry;

/// Documents that depend on the registered kinds only; built on first use.
pub(crate) struct Documents {
    registry: Arc<Registry>,
    open_api: openapi::Cached,
}

impl Documents {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Documents { registry, open_api: openapi::Cached::default() }
    }
}

/// The minor version of Kubernetes whose behaviour the server implements.
const MINOR: &str = "36";

/// Answers a path that is not a resource.
pub(crate) fn answer(
    documents: &Documents,
    info: &RequestInfo,
    method: &Method,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, ApiError> {
    let segments: Vec<&str> = info.segments.iter().map(String::as_str).collect();
    let is_known = matches!(
        segments.as_slice(),
        [] | ["api" | "apis" | "version"] | ["api", _] | ["apis", _] | ["apis", _, _] | ["openapi", "v2" | "v3", ..]
    );
    if !is_known {
        return Err(ApiError::no_such_path());
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let registry = &*documents.registry;
    let response = match segments.as_slice() {
        [] => respond::json(StatusCode::OK, &paths(registry)),
        ["version"] => respond::json(StatusCode::OK, &version()),
        ["api"] => aggregated::core(registry, headers)?,
        ["apis"] => aggregated::groups(registry, headers)?,
        ["api", version] => plain::resources(registry, "", version)?,
        ["apis", group] => plain::group(registry, group)?,
        ["apis", group, version] => plain::resources(registry, group, version)?,
        ["openapi", rest @ ..] => documents.open_api.answer(registry, rest, query.text("hash"), headers)?,
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(respond::compress(headers, response))
}

/// `/version`.
fn version() -> serde_json::Value {
    let platform = format!(
        "{}/{}",
        std::env::consts::OS,
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    );
    json!({
        "major": "1",
        "minor": MINOR,
        "gitVersion": format!("v1.{MINOR}.0+evroc-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    })
}

/// `/`: the list of paths.
fn paths(registry: &Registry) -> serde_json::Value {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for (group, versions) in registry.groups() {
        if group.is_empty() {
            paths.extend(versions.iter().map(|version| format!("/api/{version}")));
        } else {
            paths.push(format!("/apis/{group}"));
            paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
        }
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned),
    );
    paths.sort();
    json!({"paths": paths})
}
