//! The verbs on objects.

pub(crate) mod call;
mod collection;
mod connect;
mod create;
mod decode;
mod delete;
mod delete_options;
mod finalize;
mod patch;
mod read;
mod scale;
pub(crate) mod selection;
pub(crate) mod strategic;
mod strategy;
mod submit;
mod update;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use jiff::Timestamp;

use crate::object::body::{RequestBody, ResponseBody};
use crate::object::error::ApiError;
use crate::object::identity::Identity;

use crate::http::flow::Place;
use crate::http::request::negotiate;
use crate::http::request::{Query, RequestInfo, content};
use crate::http::respond;
use crate::http::server::shared::Shared;
use call::Call;

/// Finds the kind and runs the verb.
pub(crate) async fn dispatch(
    shared: &Arc<Shared>,
    identity: Identity,
    info: RequestInfo,
    query: Query,
    request: Request<RequestBody>,
    place: Place,
) -> Result<Response<ResponseBody>, ApiError> {
    let registry = &shared.registry;
    let registered =
        registry.find(&info.group, &info.version, &info.resource).cloned().ok_or_else(ApiError::no_such_path)?;
    let across_namespaces = info.namespace.is_empty() && matches!(info.verb, "list" | "watch" | "deletecollection");
    let is_scope_right = match registered.kind.is_namespaced() {
        true => {
            !info.namespace.is_empty()
                || (across_namespaces && info.verb != "deletecollection")
                || registered.kind.answer.is_some()
        }
        false => info.namespace.is_empty() || (registered.is_namespace() && info.is_namespace_itself()),
    };
    if !is_scope_right {
        return Err(ApiError::no_such_path());
    }
    if !info.subresource.is_empty() && registered.kind.connect.contains_key(&info.subresource) {
        return connect::connect(shared, &registered, identity, info, request).await;
    }
    if !info.rest.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let (parts, body) = request.into_parts();
    let accepted = negotiate::object_form(&parts.headers)?;
    if let Some(timeout) = query.text("timeout").filter(|_| info.verb != "watch") {
        check_timeout(timeout)?;
    }
    let has_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    let body = if has_body { content::read(body).await? } else { Bytes::new() };
    let headers = parts.headers;
    let call = Call {
        shared: shared.clone(),
        registered,
        identity,
        info,
        query,
        headers,
        accepted,
        body,
        warnings: Vec::new(),
        now: Timestamp::now(),
    };
    if call.body.len() <= INLINE_BYTES {
        return finish(call).await;
    }
    // The place goes with the work: a client that leaves does not get another one before it is done.
    let runtime = tokio::runtime::Handle::current();
    let working = tokio::task::spawn_blocking(move || {
        let _place = place;
        runtime.block_on(finish(call))
    });
    match working.await {
        Ok(answered) => answered,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(ApiError::internal(format!("run a request with a large body: {error}"))),
    }
}

/// Bodies up to this size are decoded and validated between the requests of others; larger ones are milliseconds of work, so they get
/// threads of their own.
const INLINE_BYTES: usize = 64 * 1024;

async fn finish(mut call: Call) -> Result<Response<ResponseBody>, ApiError> {
    let mut response = match route(&mut call).await {
        Ok(response) => response,
        // Errors also carry the warnings.
        Err(mut error) => {
            error.warnings = call.warnings;
            return Err(error);
        }
    };
    respond::add_warnings(response.headers_mut(), &call.warnings);
    if call.info.verb == "get" || call.info.verb == "list" {
        response = respond::compress(&call.headers, response);
    }
    Ok(response)
}

/// Checks that `timeout` is a Go duration.
fn check_timeout(text: &str) -> Result<(), ApiError> {
    if crate::object::schema::is_go_duration(text) {
        return Ok(());
    }
    let why = match text.parse::<f64>() {
        Ok(_) => "missing unit in",
        Err(_) => "invalid",
    };
    Err(ApiError::bad_request(format!("invalid timeout specified in the request URL - time: {why} duration {text:?}")))
}

async fn route(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let kind = &call.registered.kind;
    if kind.answer.is_some() {
        return match (call.info.verb, call.info.name.as_str()) {
            ("create", "") => create::ask(call).await,
            _ => Err(not_supported(call)),
        };
    }
    match call.info.subresource.as_str() {
        "" => {}
        "status" if kind.subresources.status => {
            return match call.info.verb {
                "get" => read::get(call).await,
                "update" => update::update(call).await,
                "patch" => patch::patch(call).await,
                _ => Err(not_supported(call)),
            };
        }
        "scale" if kind.subresources.scale.is_some() => return scale::scale(call).await,
        "finalize" if call.registered.is_namespace() => {
            return match call.info.verb {
                "update" => finalize::finalize(call).await,
                _ => Err(not_supported(call)),
            };
        }
        _ => return Err(ApiError::not_found(call.named(&call.info.name))),
    }
    match (call.info.verb, call.info.name.is_empty()) {
        ("get", false) => read::get(call).await,
        ("list", true) => read::list(call).await,
        ("watch", true) => crate::http::watch::watch(call).await,
        ("create", true) => create::create(call).await,
        ("update", false) => update::update(call).await,
        ("patch", false) => patch::patch(call).await,
        ("delete", false) => delete::delete(call).await,
        ("deletecollection", true) => collection::delete_collection(call).await,
        ("update" | "patch", true) => Err(ApiError::bad_request("name must be provided")),
        _ => Err(not_supported(call)),
    }
}

fn not_supported(call: &Call) -> ApiError {
    ApiError::verb_not_supported(call.named(""), call.info.verb)
}
