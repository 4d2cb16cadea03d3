//! Connect subresources: passes the request to the kind's handler.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};

use crate::http::request::RequestInfo;
use crate::http::server::shared::Shared;
use crate::object::body::{self, RequestBody, ResponseBody};
use crate::object::connect::ConnectRequest;
use crate::object::error::{ApiError, Named};
use crate::object::identity::Identity;
use crate::object::registry::Registered;
use crate::state::storage::keys::ObjectKey;

pub(super) async fn connect(
    shared: &Shared,
    registered: &Arc<Registered>,
    identity: Identity,
    info: RequestInfo,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, ApiError> {
    let kind = &registered.kind;
    let handler = kind.connect.get(&info.subresource).ok_or_else(ApiError::no_such_path)?.clone();
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(ApiError::method_not_allowed());
    }
    let namespace = if kind.is_namespaced() { info.namespace.clone() } else { String::new() };
    let cache = &shared.cache;
    cache.catch_up().await?;
    let key = ObjectKey::new(&namespace, &info.name);
    let named = Named { group: &kind.group, resource: &kind.plural, name: &info.name };
    let object = cache.kind(&registered.storage).get(key.as_str()).ok_or_else(|| ApiError::not_found(named))?;
    let rest = super::call::rest_of(&identity, jiff::Timestamp::now());
    let response = handler
        .connect(ConnectRequest {
            identity,
            namespace,
            name: info.name,
            object: object.parse(),
            rest: info.rest,
            request,
        })
        .await?;
    Ok(match rest {
        Duration::MAX => response,
        rest => response.map(|body| body::until(body, rest)),
    })
}
