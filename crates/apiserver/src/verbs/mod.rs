//! What can be done with objects.

mod collection;
mod connect;
mod create;
mod delete;
mod delete_options;
mod finalize;
mod patch;
mod read;
mod scale;
mod selection;
mod strategic;
mod strategy;
mod submit;
mod update;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use crate::authn::Identity;
use crate::body::{RequestBody, ResponseBody};
use crate::cache::object::CachedObject;
use crate::error::{ApiError, Named};
use crate::registry::Registered;
use crate::request::negotiate::{self, Accepted};
use crate::request::{Query, RequestInfo, content};
use crate::respond::{self, shape};
use crate::server::{ApiServer, Shared};
use crate::storage::keys::ObjectKey;

/// One authorised request for a registered kind.
pub(crate) struct Call {
    pub(crate) server: ApiServer,
    pub(crate) registered: Arc<Registered>,
    pub(crate) identity: Identity,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) accepted: Accepted,
    pub(crate) body: Bytes,
    pub(crate) warnings: Vec<String>,
    pub(crate) now: Timestamp,
}

impl Call {
    pub(crate) fn shared(&self) -> &Shared {
        &self.server.shared
    }

    /// The object in the path.
    pub(crate) fn key(&self) -> ObjectKey {
        self.key_of(&self.info.name)
    }

    /// An object of this kind in the namespace of the path.
    pub(crate) fn key_of(&self, name: &str) -> ObjectKey {
        if self.registered.kind.is_namespaced() {
            ObjectKey::new(&self.info.namespace, name)
        } else {
            ObjectKey::new("", name)
        }
    }

    /// Names for messages about an object of this kind.
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> Named<'a> {
        Named { group: &self.registered.kind.group, resource: &self.registered.kind.plural, name }
    }

    /// Names for messages about an invalid object.
    pub(crate) fn named_kind<'a>(&'a self, name: &'a str) -> Named<'a> {
        Named { group: &self.registered.kind.group, resource: &self.registered.kind.kind, name }
    }

    /// An object that the client has sent, with the server's names in place of a view's.
    pub(crate) fn take_in(&self, object: &mut Value) {
        if let Some(view) = &self.info.view {
            view.take_in(object, self.registered.kind.namespace_references);
        }
    }

    /// An object as the client is shown it: with a view's names.
    pub(crate) fn show(&self, object: &mut Value) {
        if let Some(view) = &self.info.view {
            view.show(object, self.registered.kind.namespace_references);
        }
    }

    /// Whether the view, if it is one, shows an object of this kind.
    pub(crate) fn is_shown(&self, object: &CachedObject) -> bool {
        self.info.narrowed.as_ref().is_none_or(|it| object.field(&self.registered, &it.field) == it.value)
    }

    /// An answer of one object, given as it is stored.
    pub(crate) fn answer(&self, code: StatusCode, wire: Bytes) -> Result<Response<ResponseBody>, ApiError> {
        let wire = match &self.info.view {
            None => wire,
            Some(view) => view.show_bytes(&wire, self.registered.kind.namespace_references),
        };
        shape::object(&self.registered, self.accepted, &self.query, code, wire)
    }

    /// RFC 3339 with whole seconds, as in metadata.
    pub(crate) fn time_text(&self) -> String {
        time_text(self.now)
    }

    /// Who is recorded in `managedFields`.
    pub(crate) fn manager(&self) -> String {
        match self.query.text("fieldManager") {
            Some(manager) => manager.to_owned(),
            None => {
                let agent = self.headers.get(http::header::USER_AGENT).and_then(|it| it.to_str().ok());
                let manager = crate::apply::default_manager(agent.unwrap_or_default());
                if manager.is_empty() { "unknown".into() } else { manager }
            }
        }
    }
}

/// RFC 3339 with whole seconds.
pub(crate) fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Finds the kind and the verb.
pub(crate) async fn dispatch(
    server: &ApiServer,
    identity: Identity,
    info: RequestInfo,
    query: Query,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, ApiError> {
    let registry = &server.shared.registry;
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
        return connect::connect(server, &registered, identity, info, request).await;
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
    let mut call = Call {
        server: server.clone(),
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
    let mut response = match route(&mut call).await {
        Ok(response) => response,
        // What is warned of is told also with a refusal.
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

/// `timeout` is a duration in Go's form.
fn check_timeout(text: &str) -> Result<(), ApiError> {
    if crate::schema::is_go_duration(text) {
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
        ("watch", true) => crate::watch::watch(call).await,
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

pub(crate) use read::revision_parameter;
/// The selection of a list or watch request.
pub(crate) use selection::{Part, Selection};
