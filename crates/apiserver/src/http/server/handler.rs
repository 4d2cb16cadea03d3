//! Handles one request: authentication, parsing, authorisation, the verb, the audit record.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use jiff::Timestamp;
use uuid::Uuid;

use super::shared::Shared;
use super::{enter, probes};
use crate::http::audit::AuditRecord;
use crate::http::authn::Peer;
use crate::http::authz::Decision;
use crate::http::request::{Query, RequestInfo, negotiate};
use crate::http::{discovery, respond, verbs};
use crate::object::body::{RequestBody, ResponseBody};
use crate::object::error::{ApiError, Named};
use crate::object::identity::Identity;

/// The group of every authenticated caller.
const AUTHENTICATED: &str = "system:authenticated";

/// The facts about a request for the audit log.
#[derive(Default)]
struct Trail {
    identity: Option<Identity>,
    info: RequestInfo,
    reason: String,
}

/// Answers a request; `identity` is set for callers in this process.
pub(super) async fn handle(
    shared: &Arc<Shared>,
    identity: Option<Identity>,
    request: Request<RequestBody>,
) -> Response<ResponseBody> {
    if identity.is_none()
        && let Some(mount) = shared.mounts.iter().find(|mount| mount.takes(&request))
    {
        return mount.answer(request).await;
    }
    let started = Instant::now();
    let time = Timestamp::now();
    let audit_id = Uuid::new_v4().to_string();
    let query = Query::parse(request.uri().query());
    let segments = request.uri().path().trim_matches('/').split('/').map(str::to_owned).collect::<Vec<_>>();
    if matches!(*request.method(), Method::GET | Method::HEAD)
        && let Some(response) = probes::answer(shared, &segments, &query).await
    {
        return response;
    }
    let uri = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let encoding = negotiate::object_form(request.headers()).map(|it| it.encoding).unwrap_or_default();
    let agent = text_header(request.headers(), http::header::USER_AGENT.as_str());
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let source = match (&identity, peer.address) {
        (Some(_), _) => "in-process".to_owned(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "unknown".to_owned(),
    };
    let mut trail = Trail::default();
    let answering = AssertUnwindSafe(answer(shared, identity, &peer, query, request, &mut trail)).catch_unwind().await;
    // A panic in one request does not end other requests of the connection.
    let answered = answering.unwrap_or_else(|_| Err(ApiError::internal("the server failed at this request")));
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => {
            if trail.reason.is_empty() {
                trail.reason = error.message.clone();
            }
            if error.code == StatusCode::INTERNAL_SERVER_ERROR {
                tracing::error!(error = %error.message, %uri, "request failed");
            }
            respond::error(&error, encoding)
        }
    };
    if let Ok(value) = HeaderValue::from_str(&audit_id) {
        response.headers_mut().insert("audit-id", value);
    }
    response.headers_mut().entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    let Trail { identity, info, reason } = trail;
    let code = response.status().as_u16();
    shared.audit.record(AuditRecord {
        time,
        audit_id,
        user: identity,
        source,
        user_agent: agent,
        verb: info.verb.to_owned(),
        uri,
        group: info.group,
        resource: info.resource,
        subresource: info.subresource,
        namespace: info.namespace,
        name: info.name,
        code,
        reason,
        duration_us: started.elapsed().as_micros() as u64,
    });
    response
}

fn text_header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned()
}

async fn answer(
    shared: &Arc<Shared>,
    identity: Option<Identity>,
    peer: &Peer,
    query: Query,
    request: Request<RequestBody>,
    trail: &mut Trail,
) -> Result<Response<ResponseBody>, ApiError> {
    let mut identity = match identity {
        Some(identity) => identity,
        None => match shared.authenticator.authenticate(peer, request.headers()).await {
            Ok(Some(identity)) => identity,
            Ok(None) => {
                trail.reason = "no credentials were given".into();
                return Err(ApiError::unauthorized());
            }
            Err(error) => {
                trail.reason = error.reason;
                return Err(ApiError::unauthorized());
            }
        },
    };
    if !identity.is_in(AUTHENTICATED) {
        identity.groups.push(AUTHENTICATED.into());
    }
    trail.identity = Some(identity.clone());
    let (cluster, path) = match enter::split(request.uri().path()) {
        Some((cluster, path)) => (Some(cluster), path),
        None => (None, request.uri().path()),
    };
    let mut info = RequestInfo::parse(request.method(), path, &query)?;
    let no_view = match cluster {
        Some(cluster) => enter::enter(shared, cluster, &mut info).await?,
        None => None,
    };
    trail.info = info.clone();
    if request.headers().keys().any(|name| name.as_str().starts_with("impersonate-")) {
        let named = Named { group: "authentication.k8s.io", resource: "users", name: "" };
        return Err(ApiError::forbidden(named, "impersonation is not supported by this server"));
    }
    authorize(shared, &identity, &info, &query, trail).await?;
    if let Some(refusal) = no_view {
        return Err(refusal);
    }
    // Released when the response begins, so that watches and streams do not hold it.
    let _place = shared.flow.enter(&identity).await?;
    if info.is_resource {
        verbs::dispatch(shared, identity, info, query, request).await
    } else {
        let documents = match enter::split(request.uri().path()) {
            None => &shared.documents,
            Some((cluster, _)) => enter::documents(shared, cluster, &identity).await,
        };
        discovery::answer(documents, &info, request.method(), &query, request.headers())
    }
}

async fn authorize(
    shared: &Arc<Shared>,
    identity: &Identity,
    info: &RequestInfo,
    query: &Query,
    trail: &mut Trail,
) -> Result<(), ApiError> {
    let mut attributes = info.attributes();
    if matches!(info.verb, "list" | "watch" | "deletecollection")
        && let Some(name) = query.get("fieldSelector").and_then(|it| it.strip_prefix("metadata.name="))
        && !name.contains(',')
    {
        attributes.name = name.to_owned();
    }
    let Decision::Deny { reason } = shared.authorizer.authorize(identity, &attributes).await else {
        return Ok(());
    };
    trail.reason = if reason.is_empty() { "not authorised".into() } else { reason.clone() };
    Err(respond::forbidden(identity, info, &reason))
}
