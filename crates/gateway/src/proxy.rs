//! From a request to a replica: find the revision, wait for a replica while there is none, send, pass the answer on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;

use crate::connect::{Pool, RequestBody};
use crate::forward::{Outcome, forward};
use crate::respond::{ResponseBody, sentence};
use crate::table::{Key, Lease, Route, Table, Ticket};

/// The longest that a request waits for a replica. Too low fails slow starters; too high keeps clients of a broken
/// service hanging.
const WAIT_FOR_REPLICA: Duration = Duration::from_secs(60);
/// How often a request is sent anew when a replica certainly did not receive it.
const ATTEMPTS: usize = 8;

/// What every connection shares.
pub struct Proxy {
    /// Who answers for what.
    pub table: Arc<Table>,
    /// Connections to replicas.
    pub pool: Arc<Pool>,
    /// The cloud's domain, for explanations.
    pub domain: String,
}

impl Proxy {
    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<ResponseBody> {
        let Some(host) = host_of(&request) else {
            return sentence(StatusCode::BAD_REQUEST, "the request names no host: expected a Host header");
        };
        let fixed = ["api", "iam", "console", "registry"].iter().any(|name| host == format!("{name}.{}", self.domain));
        if fixed {
            return sentence(StatusCode::MISDIRECTED_REQUEST, &format!("{host} is answered on connections of its own: connect again"));
        }
        let (parts, body) = request.into_parts();
        let mut request = Request::from_parts(parts, body.boxed());
        let mut ticket: Option<(Key, Ticket)> = None;
        let deadline = tokio::time::Instant::now() + WAIT_FOR_REPLICA;
        for _ in 0..ATTEMPTS {
            let lease = match self.acquire(&host, &mut ticket, deadline).await {
                Ok(lease) => lease,
                Err(refusal) => return refusal,
            };
            let counted = ticket.take().map(|(revision, mut ticket)| {
                ticket.start();
                (revision, ticket)
            });
            let again = repeatable(&request);
            match forward(&self.pool, request, lease, counted.map(|(_, t)| t), peer).await {
                Outcome::Answer(response) => return response,
                Outcome::NotReceived(returned) => request = *returned,
                Outcome::Lost(error) => match again {
                    Some(copy) => request = copy,
                    None => return sentence(StatusCode::BAD_GATEWAY, &format!("the container closed the connection without an answer: {error}")),
                },
            }
        }
        sentence(StatusCode::BAD_GATEWAY, "no replica of the service took the request")
    }

    /// A replica for the host's revision, at the latest at the deadline. The ticket counts the request at its revision
    /// while it waits.
    async fn acquire(&self, host: &str, ticket: &mut Option<(Key, Ticket)>, deadline: tokio::time::Instant) -> Result<Lease, Response<ResponseBody>> {
        loop {
            let change = self.table.change();
            tokio::pin!(change);
            change.as_mut().enable();
            let revision = match self.table.route(host) {
                Some(Route::To(revision)) => revision,
                Some(Route::NotReady(why)) => return Err(sentence(StatusCode::SERVICE_UNAVAILABLE, &format!("the service is not ready yet: {why}"))),
                None => return Err(sentence(StatusCode::NOT_FOUND, &format!("there is no service at {host}"))),
            };
            if ticket.as_ref().is_none_or(|(counted, _)| *counted != revision) {
                *ticket = Some((revision.clone(), self.table.ticket(&revision)));
            }
            if let Some(lease) = self.table.lease(&revision) {
                return Ok(lease);
            }
            if tokio::time::timeout_at(deadline, change).await.is_err() {
                let text = format!("no replica of revision {} became ready within {} s", revision.name, WAIT_FOR_REPLICA.as_secs());
                return Err(sentence(StatusCode::GATEWAY_TIMEOUT, &text));
            }
        }
    }
}

/// The host that a request is for, without its port.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    let named = request.uri().host().map(str::to_owned);
    let host = named.or_else(|| request.headers().get(header::HOST)?.to_str().ok().map(str::to_owned))?;
    let host = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host.as_str(), |(h, _)| h);
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

/// A copy of a request that may be sent twice: its method is safe and it has no body.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    use hyper::body::Body;
    if !request.method().is_safe() || !request.body().is_end_stream() || request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let mut copy = Request::new(Empty::new().map_err(|never| match never {}).boxed());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
