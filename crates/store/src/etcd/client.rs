//! Calls to an etcd cluster: one connection to each member for requests and one for watches, so that events which wait
//! for a consumer do not hold up requests.
//!
//! Requests go to one member until it cannot answer, then to the next one. Reads are retried; a write is retried only if it
//! certainly did not reach a member: otherwise it is unknown whether it was applied, which is reported.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::Address;

/// How long a member may take to accept a connection. Too short gives up on a busy member, too long delays the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a response may take; etcd itself gives up a little earlier when it has no leader.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long calls are retried: an election of a leader takes about a second.
const REPEAT_FOR: Duration = Duration::from_secs(10);
/// The pause between rounds over all members.
const PAUSE: Duration = Duration::from_millis(100);
/// The interval of keep-alive pings while responses are outstanding. etcd closes connections that ping more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a member may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a call may be repeated when its outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Repeating has no effect.
    Read,
    /// Repeating may apply a change twice.
    Write,
}

/// Bytes that a member may send ahead on a stream.
const STREAM_WINDOW: u32 = 8 << 20;
/// Bytes that a member may send ahead on a connection. The HTTP/2 library also sizes by it how many small frames may wait (half of
/// it, 256 bytes each): with its default of 64 KiB, the answers to some hundred writes at a time, each a few bytes, are taken for
/// an attack and the connection is closed.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// The TLS material for connections to etcd, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// The authority that has signed the members' certificates.
    pub ca: Vec<u8>,
    /// The client's certificate and key, if the members require one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

pub(super) struct Client {
    requests: Vec<Channel>,
    watches: Vec<Channel>,
    current: AtomicUsize,
}

impl Client {
    /// Prepares connections, which are opened on first use.
    pub fn new(address: &Address, tls: Option<&Tls>) -> Result<Self, tonic::transport::Error> {
        let channels = || -> Result<Vec<Channel>, tonic::transport::Error> {
            address.endpoints.iter().map(|member| Ok(endpoint(member, tls)?.connect_lazy())).collect()
        };
        Ok(Client { requests: channels()?, watches: channels()?, current: AtomicUsize::new(0) })
    }

    /// Makes one call, at the next member if one cannot answer.
    pub async fn call<Q, A>(&self, path: &'static str, effect: Effect, question: Q) -> Result<A, Status>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let deadline = Instant::now() + REPEAT_FOR;
        let mut attempts = 0;
        loop {
            let member = self.current.load(Ordering::Relaxed);
            let mut grpc = grpc(&self.requests[member % self.requests.len()]);
            let mut request = request(question.clone());
            request.set_timeout(CALL_TIMEOUT);
            let answer = async {
                grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
                let codec = ProstCodec::<Q, A>::default();
                grpc.unary(request, PathAndQuery::from_static(path), codec).await
            };
            let answered = tokio::time::timeout(CALL_TIMEOUT, answer).await;
            let status = match answered {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if !is_of_the_member(&status) || (effect == Effect::Write && !never_sent(&status)) {
                if is_of_the_member(&status) {
                    self.leave(member);
                }
                return Err(status);
            }
            self.leave(member);
            attempts += 1;
            if Instant::now() >= deadline {
                return Err(status);
            }
            if attempts % self.requests.len() == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Opens a bidirectional stream; the member may differ each time.
    pub async fn stream<Q, A>(
        &self,
        path: &'static str,
        questions: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let member = self.current.load(Ordering::Relaxed);
        let mut grpc = grpc(&self.watches[member % self.watches.len()]);
        let opened = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.streaming(request(questions), PathAndQuery::from_static(path), codec).await
        };
        let opened = tokio::time::timeout(CALL_TIMEOUT, opened).await;
        match opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => {
                if is_of_the_member(&status) {
                    self.leave(member);
                }
                Err(status)
            }
        }
    }

    /// Returns the number of members.
    pub fn members(&self) -> usize {
        self.requests.len()
    }

    /// Switches to the next member, because the current one does not answer in time.
    pub fn leave_current(&self) {
        self.leave(self.current.load(Ordering::Relaxed));
    }

    /// Switches to the next member, unless another call has already done so.
    fn leave(&self, member: usize) {
        let _ = self.current.compare_exchange(member, member.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn grpc(channel: &Channel) -> Grpc<Channel> {
    // A whole revision is one message, of any size.
    Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX)
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    // A member without a connection to the others reports that instead of being silent.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

fn endpoint(member: &str, tls: Option<&Tls>) -> Result<Endpoint, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{member}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let Some(tls) = tls else { return Ok(endpoint) };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(config)
}

/// Whether another member may be able to answer.
fn is_of_the_member(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        || (status.code() == Code::Unknown && std::error::Error::source(status).is_some())
}

/// Whether a request certainly reached no member.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
