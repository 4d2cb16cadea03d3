//! From a request to a replica: find the revision, wait for a replica while there is none, send, pass the answer on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evroc_metrics::{span, spans};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{Instrument, field};

use crate::connect::{Pool, RequestBody};
use crate::forward::{Hold, Outcome, forward};
use crate::metrics::{ColdWait, Metrics, ServiceMetrics, Unrouted};
use crate::respond::{ResponseBody, sentence};
use crate::table::{Choice, Lease, Route, Table, Ticket};
use crate::time;

/// The longest that a request waits for a replica. Too low fails slow starters; too high keeps clients of a broken
/// service hanging.
pub const WAIT_FOR_REPLICA: Duration = Duration::from_secs(60);
/// The most requests of one revision that wait for a replica. Too low refuses the burst that a service at zero is woken by; too high keeps
/// memory and connections of the gateway, which all services share, for one whose containers do not start.
pub const MOST_WAITING: i32 = 1000;
/// How often a request that is safe to repeat is sent again after its response was lost. Too low shows a replica's end to
/// users; too high lets a request that crashes containers crash many.
pub const REPEATS: usize = 2;

/// The state shared by all connections.
pub struct Proxy {
    /// Routes and replicas.
    pub table: Arc<Table>,
    /// Connections to replicas.
    pub pool: Arc<Pool>,
    /// The cloud's domain.
    pub domain: String,
    /// The names below the domain that control serves.
    pub control_names: &'static [&'static str],
    /// The metrics.
    pub(crate) metrics: Arc<Metrics>,
}

/// The facts about a request for its counters.
#[derive(Default)]
struct Trail {
    service: Option<Arc<ServiceMetrics>>,
    unrouted: Option<Unrouted>,
}

impl Proxy {
    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<ResponseBody> {
        let (began, mut trail) = (time::now(), Trail::default());
        let span = span!(
            "request",
            otel.name = operation(request.method()),
            otel.kind = "server",
            otel.status_code = field::Empty,
            http.request.method = request.method().as_str(),
            http.response.status_code = field::Empty,
            url.path = request.uri().path(),
            server.address = host_of(&request),
            user_agent.original = request.headers().get(header::USER_AGENT).and_then(|it| it.to_str().ok()),
            namespace = field::Empty,
            service = field::Empty,
        );
        // As other gateways do: what a client says about its trace goes on, and has no effect but on the trace.
        span.in_scope(|| spans::adopt(request.headers()));
        let response = self.answer(request, peer, &mut trail).instrument(span.clone()).await;
        span.record("http.response.status_code", response.status().as_u16());
        if response.status().is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
        if let Some(service) = &trail.service {
            let (namespace, name) = service.name();
            span.record("namespace", namespace).record("service", name);
        }
        match (trail.service, trail.unrouted) {
            (Some(service), _) => service.answered(response.status(), began),
            (None, Some(reason)) => self.metrics.unrouted(reason),
            (None, None) => {}
        }
        response
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr, trail: &mut Trail) -> Response<ResponseBody> {
        trail.unrouted = Some(Unrouted::Invalid);
        if request.method() == Method::CONNECT {
            return sentence(
                StatusCode::METHOD_NOT_ALLOWED,
                "CONNECT is for proxies: expected a request for a service",
            );
        }
        let Some(host) = host_of(&request) else {
            return sentence(StatusCode::BAD_REQUEST, "the request names no host: expected a Host header");
        };
        let own = host.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.'));
        if own.is_some_and(|own| self.control_names.contains(&own)) {
            let text = format!("{host} is answered on connections of its own: connect again");
            return sentence(StatusCode::MISDIRECTED_REQUEST, &text);
        }
        trail.unrouted = None;
        let (parts, body) = request.into_parts();
        let mut request = Request::from_parts(parts, body.boxed());
        let mut waiting: Option<Ticket> = None;
        let deadline = time::now() + WAIT_FOR_REPLICA;
        let mut repeats = 0;
        // Ends: what is not received is followed by a pause for its replica, or used up a kept connection.
        loop {
            let found = self.acquire(&host, waiting.take(), deadline, trail).instrument(span!("find replica"));
            let (lease, mut ticket) = match found.await {
                Ok(place) => place,
                Err(refusal) => return refusal,
            };
            ticket.start();
            let copy = if repeats < REPEATS { repeatable(&request) } else { None };
            // A repeated request does not meet the next of several connections that ended together.
            let fresh = repeats > 0;
            let replica = &lease.replica.key.name;
            let sending = span!("send to container", otel.kind = "client", replica);
            let forwarded = forward(&self.pool, request, Hold { lease, ticket }, fresh, peer);
            let mut ticket = match forwarded.instrument(sending).await {
                Outcome::Answer(response) => return response,
                Outcome::NotReceived(returned, ticket) => {
                    request = *returned;
                    ticket
                }
                Outcome::ConnectionLost(error, ticket) => {
                    let Some(copy) = copy else {
                        let text = format!("the container closed the connection without an answer: {error}");
                        return sentence(StatusCode::BAD_GATEWAY, &text);
                    };
                    repeats += 1;
                    request = copy;
                    ticket
                }
            };
            ticket.wait();
            waiting = Some(ticket);
        }
    }

    /// A replica for the host's revision, at the latest at the deadline. The ticket counts the request at its revision
    /// while it waits.
    async fn acquire(
        &self,
        host: &str,
        mut ticket: Option<Ticket>,
        deadline: Instant,
        trail: &mut Trail,
    ) -> Result<(Lease, Ticket), Response<ResponseBody>> {
        let mut cold: Option<ColdWait> = None;
        loop {
            let change = self.table.change();
            tokio::pin!(change);
            change.as_mut().enable();
            let (route, service) = match self.table.routed(host) {
                Some(routed) => (Some(routed.route), routed.service),
                None => (None, None),
            };
            let revision = match route {
                Some(Route::To(revision)) => Some(revision),
                Some(Route::NotReady(why)) => {
                    trail.service = service;
                    let text = format!("the service is not ready yet: {why}");
                    return Err(sentence(StatusCode::SERVICE_UNAVAILABLE, &text));
                }
                None if self.table.is_complete() => {
                    trail.unrouted = Some(Unrouted::NoService);
                    return Err(sentence(StatusCode::NOT_FOUND, &format!("there is no service at {host}")));
                }
                None => None,
            };
            let mut until = deadline;
            if let Some(revision) = &revision {
                let (counted, is_new) = match ticket.take() {
                    Some(ticket) if ticket.revision == *revision => (ticket, false),
                    _ => (self.table.ticket(revision), true),
                };
                match self.table.choose(revision) {
                    Choice::Now(lease) => {
                        if let Some(cold) = cold {
                            cold.warm();
                        }
                        trail.service = service;
                        return Ok((lease, counted));
                    }
                    Choice::NotBefore(when) => until = when.min(deadline),
                    Choice::Nowhere => cold = cold.or_else(|| service.clone().map(ColdWait::begin)),
                }
                // Requests that wait already keep their places.
                if is_new && self.table.waiting(revision) > MOST_WAITING {
                    let name = &revision.name;
                    let text = format!(
                        "{MOST_WAITING} requests wait for a replica of revision {name} already: try again later"
                    );
                    return Err(sentence(StatusCode::SERVICE_UNAVAILABLE, &text));
                }
                ticket = Some(counted);
            }
            if time::timeout_at(until, change).await.is_err() && until == deadline {
                trail.service = service;
                trail.unrouted = Some(Unrouted::Starting);
                return Err(match revision {
                    Some(revision) => {
                        let (name, seconds) = (revision.name, WAIT_FOR_REPLICA.as_secs());
                        let text = format!("no replica of revision {name} became ready within {seconds} s");
                        sentence(StatusCode::GATEWAY_TIMEOUT, &text)
                    }
                    None => sentence(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the gateway is starting: it cannot read the services yet",
                    ),
                });
            }
        }
    }
}

/// The host that a request is for, without its port.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    let named = request.uri().host().map(str::to_owned);
    let host = named.or_else(|| request.headers().get(header::HOST)?.to_str().ok().map(str::to_owned))?;
    let port = |(_, port): &(&str, &str)| port.bytes().all(|b| b.is_ascii_digit());
    let host = host.rsplit_once(':').filter(port).map_or(host.as_str(), |(host, _)| host);
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

/// The name of a request's span: its method, if it is one that HTTP knows.
fn operation(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "HTTP",
    }
}

/// A copy of a request that may be sent twice: its method is safe and it has no body.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    use hyper::body::Body;
    if !request.method().is_safe() || !request.body().is_end_stream() || request.headers().contains_key(header::UPGRADE)
    {
        return None;
    }
    let mut copy = Request::new(Empty::new().map_err(|never| match never {}).boxed());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
