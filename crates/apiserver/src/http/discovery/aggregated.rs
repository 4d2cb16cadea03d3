//! Aggregated discovery (`apidiscovery.k8s.io`) for clients that request it, plain discovery for others.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::plain;
use crate::http::request::negotiate::accept_ranges;
use crate::http::respond;
use crate::object::body::{self, ResponseBody};
use crate::object::error::ApiError;
use crate::object::openapi;
use crate::object::registry::{Registered, Registry};

/// The form that a client accepts.
enum Form {
    Plain,
    Aggregated(&'static str),
}

fn form(headers: &HeaderMap) -> Result<Form, ApiError> {
    let ranges = accept_ranges(headers);
    if ranges.is_empty() {
        return Ok(Form::Plain);
    }
    for range in &ranges {
        let is_json = matches!(range.media_type.as_str(), "application/json" | "*/*" | "application/*");
        if !is_json {
            continue;
        }
        match (range.parameter("as"), range.parameter("g"), range.parameter("v")) {
            (None, _, _) => return Ok(Form::Plain),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Ok(Form::Aggregated("v2"));
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                return Ok(Form::Aggregated("v2beta1"));
            }
            _ => {}
        }
    }
    Err(ApiError::not_acceptable("application/json"))
}

/// `/api`.
pub(super) fn core(registry: &Registry, headers: &HeaderMap) -> Result<Response<ResponseBody>, ApiError> {
    answer(headers, plain::core_versions(registry), |version| document(registry, version, |group| group.is_empty()))
}

/// `/apis`.
pub(super) fn groups(registry: &Registry, headers: &HeaderMap) -> Result<Response<ResponseBody>, ApiError> {
    answer(headers, plain::group_list(registry), |version| document(registry, version, |group| !group.is_empty()))
}

fn answer(
    headers: &HeaderMap,
    plain: Value,
    aggregated: impl Fn(&str) -> Value,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut response = match form(headers)? {
        Form::Plain => respond::json(StatusCode::OK, &plain),
        Form::Aggregated(version) => {
            let bytes = serde_json::to_vec(&aggregated(version)).unwrap_or_default();
            let tag = format!("\"{}\"", openapi::hash(&bytes));
            let media_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
            let media_type = HeaderValue::from_str(&media_type).map_err(ApiError::internal)?;
            let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|it| it.as_bytes() == tag.as_bytes());
            let mut response = if is_known {
                respond::with_type(StatusCode::NOT_MODIFIED, media_type, body::empty())
            } else {
                respond::with_type(StatusCode::OK, media_type, body::full(bytes))
            };
            response.headers_mut().insert(header::ETAG, HeaderValue::from_str(&tag).map_err(ApiError::internal)?);
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
            response
        }
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

fn document(registry: &Registry, form: &str, takes: impl Fn(&str) -> bool) -> Value {
    let items: Vec<Value> = registry
        .groups()
        .into_iter()
        .filter(|(group, _)| takes(group))
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = registry.of_version(group, version).map(|it| resource(it)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = json!({});
            if !group.is_empty() {
                metadata["name"] = json!(group);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{form}"),
        "metadata": {},
        "items": items,
    })
}

fn resource(registered: &Registered) -> Value {
    let kind = &registered.kind;
    let response_kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = response_kind(&kind.group, &kind.version, &kind.kind);
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": own,
        "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": plain::verbs(registered),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let subresources: Vec<Value> = plain::subresources(registered)
        .into_iter()
        .map(|sub| {
            let kind =
                sub.kind.map_or_else(|| own.clone(), |(group, version, kind)| response_kind(group, version, kind));
            json!({"subresource": sub.name, "responseKind": kind, "verbs": sub.verbs})
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}
