//! Handles one request: authentication, parsing, authorisation, the verb, the audit record.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use evroc_metrics::{span, spans};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use jiff::Timestamp;
use tracing::{Instrument, Span, field};
use uuid::Uuid;

use super::shared::Shared;
use super::{enter, exposition, origin, probes};
use crate::http::audit::{self, AuditRecord};
use crate::http::authn::{Authenticate, Ending, Peer};
use crate::http::authz::Decision;
use crate::http::flow::Place;
use crate::http::mount::Mount;
use crate::http::request::{Query, RequestInfo, negotiate};
use crate::http::{discovery, metrics, respond, verbs};
use crate::object::body::{self, RequestBody, ResponseBody};
use crate::object::error::{ApiError, Named};
use crate::object::identity::Identity;

/// The group of every authenticated caller.
const AUTHENTICATED: &str = "system:authenticated";

/// Controllers of the platform: no credential gives this identity.
const CONTROLLERS: &str = "system:controllers";

/// Begins the names under which callers that the server does not know are counted; not a name that a credential can have.
const UNKNOWN_PREFIX: &str = "system:unknown:";

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
    let mounts = &shared.mounts;
    let mount = mounts.iter().find(|mount| identity.is_none() && mount.takes(&request)).cloned();
    let started = Instant::now();
    let time = Timestamp::now();
    let audit_id = Uuid::new_v4().to_string();
    let query = Query::parse(request.uri().query());
    let segments = request.uri().path().trim_matches('/').split('/').map(str::to_owned).collect::<Vec<_>>();
    if mount.is_none()
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && let Some(response) = probes::answer(shared, &segments, &query).await
    {
        return response;
    }
    let uri = audit::shown_uri(request.uri());
    let encoding = negotiate::object_form(request.headers()).map(|it| it.encoding).unwrap_or_default();
    let agent = audit::shown_agent(&text_header(request.headers(), http::header::USER_AGENT.as_str()));
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let source = match (&identity, peer.address) {
        (Some(_), _) => "in-process".to_owned(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "unknown".to_owned(),
    };
    let span = span!(
        "request",
        otel.name = field::Empty,
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = request.method().as_str(),
        http.response.status_code = field::Empty,
        user_agent.original = Some(agent.as_str()).filter(|it| !it.is_empty()),
        audit_id,
        verb = field::Empty,
        group = field::Empty,
        resource = field::Empty,
        subresource = field::Empty,
        namespace = field::Empty,
        name = field::Empty,
    );
    let mut trail = Trail::default();
    let in_flight = shared.metrics.begin(request.method());
    let mounted = mount.as_ref().map(|mount| mount.label().clone());
    let is_apply = metrics::is_apply(request.headers());
    let answering = async {
        origin::check(&request, &shared.origins)?;
        match mount {
            Some(mount) => answer_mounted(shared, &mount, &peer, request, &mut trail).await,
            None => answer(shared, identity, &peer, query, request, &mut trail).await,
        }
    };
    let answering = AssertUnwindSafe(answering).catch_unwind().instrument(span.clone()).await;
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
    drop(in_flight);
    let labels = shared.metrics.labels(Some(&info).filter(|it| !it.verb.is_empty()), mounted.as_ref(), is_apply);
    if !span.is_disabled() {
        describe(&span, &labels.operation(), &info, response.status());
    }
    drop(span);
    let response = shared.metrics.end(labels, started.elapsed(), response);
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
        reason: audit::shown_reason(&reason),
        duration_us: started.elapsed().as_micros() as u64,
    });
    response
}

/// Notes in the span of a request what is known when the answer begins.
fn describe(span: &Span, operation: &str, info: &RequestInfo, status: StatusCode) {
    span.record("otel.name", operation).record("http.response.status_code", status.as_u16());
    let parts = [
        ("verb", info.verb),
        ("group", &info.group),
        ("resource", &info.resource),
        ("subresource", &info.subresource),
        ("namespace", &info.namespace),
        ("name", &info.name),
    ];
    for (field, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
        span.record(field, part);
    }
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
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
        None => authenticate(shared, &shared.authenticator, peer, request.headers()).await.map_err(|reason| {
            trail.reason = reason;
            ApiError::unauthorized()
        })?,
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
    let place = enter_flow(shared, &identity).await?;
    if info.is_resource {
        let expires = identity.expires;
        let response = verbs::dispatch(shared, identity, info, query, request, place).await?;
        if let Some(end) = expires.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
            peer.end_at(end);
        }
        Ok(until_revoked(response, || trail.identity.as_ref().and_then(|caller| shared.revoked.of(caller)), peer))
    } else {
        if cluster.is_none()
            && let Some(answered) = exposition::answer(shared, &info, request.headers()).await
        {
            return answered;
        }
        let documents = match enter::split(request.uri().path()) {
            None => &shared.documents,
            Some((cluster, _)) => enter::documents(shared, cluster, &identity).await,
        };
        discovery::answer(documents, &info, request.method(), &query, request.headers())
    }
}

/// Waits for a slot of the caller.
async fn enter_flow(shared: &Shared, caller: &Identity) -> Result<Place, ApiError> {
    shared.flow.enter(caller).await.map_err(|rejection| {
        shared.metrics.reject(rejection);
        rejection.into()
    })
}

/// Ends a stream, or a connection that was taken over, when the caller's credential is revoked.
fn until_revoked<F: Future<Output = ()> + Send + 'static>(
    response: Response<ResponseBody>,
    revoked: impl FnOnce() -> Option<F>,
    peer: &Peer,
) -> Response<ResponseBody> {
    let is_taken_over = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    // Most answers are there at once, and cost nothing more.
    if !is_taken_over && response.body().size_hint().exact().is_some() {
        return response;
    }
    let Some(revoked) = revoked() else { return response };
    if is_taken_over {
        peer.end_with(Ending(Box::pin(revoked)));
        return response;
    }
    response.map(|body| body::unless(body, revoked, "the credential of the caller was revoked"))
}

/// Authenticates a request from the network, or returns why that failed.
async fn authenticate(
    shared: &Arc<Shared>,
    authenticator: &Arc<dyn Authenticate>,
    peer: &Peer,
    headers: &HeaderMap,
) -> Result<Identity, String> {
    let identity = match authenticator.authenticate(peer, headers).await {
        Ok(Some(identity)) => identity,
        Ok(None) => return Err("no credentials were given".into()),
        Err(error) => return Err(error.reason),
    };
    if identity.is_in(CONTROLLERS) {
        return Err(format!("only callers within the process are in {CONTROLLERS}"));
    }
    if shared.revoked.has(&identity) {
        return Err(format!("the credential of {:?} was revoked", identity.user));
    }
    peer.note_known();
    // Only callers with a credential decide which traces there are.
    spans::adopt(headers);
    Ok(identity)
}

/// A request for another service: like any other up to the authorisation.
async fn answer_mounted(
    shared: &Arc<Shared>,
    mount: &Mount,
    peer: &Peer,
    mut request: Request<RequestBody>,
    trail: &mut Trail,
) -> Result<Response<ResponseBody>, ApiError> {
    trail.info.verb = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => "get",
        Method::POST => "create",
        Method::PUT | Method::PATCH => "update",
        Method::DELETE => "delete",
        _ => "other",
    };
    let authenticator = mount.authenticator().unwrap_or(&shared.authenticator);
    let caller = match authenticate(shared, authenticator, peer, request.headers()).await {
        Ok(identity) => {
            trail.identity = Some(identity.clone());
            request.extensions_mut().insert(identity.clone());
            identity
        }
        Err(reason) if mount.has_own_challenge() => {
            trail.reason = reason;
            // Callers that only the service knows share the places of their address.
            let address = peer.address.map(|it| it.ip().to_string()).unwrap_or_default();
            Identity::new(format!("{UNKNOWN_PREFIX}{address}"), [""; 0])
        }
        Err(reason) => {
            trail.reason = reason;
            return Err(ApiError::unauthorized());
        }
    };
    let _place = enter_flow(shared, &caller).await?;
    let response = until_revoked(mount.answer(request).await, || shared.revoked.of(&caller), peer);
    if !response.status().is_client_error() {
        peer.note_known();
    }
    Ok(response)
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
