//! Control's end of the tunnels that nodes open: the only way in which control calls a host, and only for streams that a user
//! requested (console, port forward, logs).
//!
//! A node requests `Upgrade: evroc-tunnel` ([`Tunnels::accept`]); from then on the connection speaks HTTP/2 with control as the
//! client.
//! The requests are described at the top of this crate. A host has one tunnel; a newer one replaces it, for the older
//! is dead and does not know it yet.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::watch;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::protocol::{
    CONNECTION_WINDOW, DIAL_PATH, KEEP_ALIVE, KEEP_ALIVE_DEADLINE, LogOptions, METRICS_PATH, MachineAction, PROTOCOL,
    STREAM_WINDOW, TARGET_HEADER, WRITTEN_HEADER, action_path, console_path, machine_target, previous_serial_log_path,
    serial_log_path, service_log_path,
};

/// A user who comes while the node is restarting waits this long for its tunnel.
const TUNNEL_DEADLINE: Duration = Duration::from_secs(5);
/// A node answers when it has connected to the machine; ssh clients give up after longer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// Bytes of a user that may wait for the tunnel.
const UPLOAD_BUFFER: usize = 64 << 10;
/// A process writes its metrics in milliseconds; Prometheus gives up after 10 s, for all that it reads at a time.
const METRICS_DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of the metrics of one process: many times what a full host has.
const MAX_METRICS: usize = 16 << 20;
/// A refusal is one sentence.
const MAX_REFUSAL: usize = 64 << 10;

type Body = BoxBody<Bytes, io::Error>;
type Sender = SendRequest<Body>;

/// The reason why a stream failed, as a message for the user.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The host has no tunnel.
    #[error("host {host} is not connected: is its node running?")]
    NotConnected {
        /// Its name.
        host: String,
    },
    /// The host refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The host's message.
        message: String,
    },
    /// The tunnel broke.
    #[error("request a stream from host {host}")]
    Broken {
        /// Its name.
        host: String,
        /// The cause.
        #[source]
        source: hyper::Error,
    },
    /// The host is silent.
    #[error("host {host} did not answer within {seconds} s")]
    Late {
        /// Its name.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
}

impl TunnelError {
    /// The HTTP status for the user's program.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotConnected { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused { status, .. } => *status,
            Self::Broken { .. } => StatusCode::BAD_GATEWAY,
            Self::Late { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// The tunnels of all hosts. Cheap to clone.
#[derive(Clone)]
pub struct Tunnels {
    shared: Arc<Shared>,
}

struct Shared {
    senders: Mutex<HashMap<String, (u64, Sender)>>,
    generation: AtomicU64,
    /// Changes with every tunnel that comes.
    arrivals: watch::Sender<u64>,
    /// How long an absent tunnel is waited for.
    patience: Duration,
}

impl Default for Tunnels {
    fn default() -> Self {
        Self::with_patience(TUNNEL_DEADLINE)
    }
}

impl Tunnels {
    pub(crate) fn with_patience(patience: Duration) -> Self {
        let senders = Mutex::default();
        let (generation, arrivals) = (AtomicU64::new(0), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { senders, generation, arrivals, patience }) }
    }

    /// Answers a node's request for a tunnel: 101, and the connection is served in the background until it ends. The caller has made
    /// sure that the caller is the node of `host`.
    pub fn accept<B>(&self, host: &str, request: Request<B>) -> Response<Empty<Bytes>> {
        let wants = request.headers().get(header::UPGRADE).is_some_and(|value| value == PROTOCOL);
        let mut response = Response::new(Empty::new());
        response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static(PROTOCOL));
        if !wants {
            *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
            return response;
        }
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let (this, host) = (self.clone(), host.to_owned());
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let result = match upgrade.await {
                Ok(upgraded) => this.serve(&host, upgraded).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => tracing::info!(host, "tunnel closed"),
                Err(error) => tracing::info!(host, %error, "tunnel broke"),
            }
        });
        response
    }

    /// Uses a connection as the tunnel of `host`, until it ends.
    pub async fn serve<I>(&self, host: &str, io: I) -> Result<(), hyper::Error>
    where
        I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_DEADLINE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(io)
            .await?;
        let generation = self.shared.generation.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(host.to_owned(), (generation, sender));
        tracing::info!(host, "tunnel open");
        self.shared.arrivals.send_replace(generation);
        let result = connection.await;
        let mut senders = self.lock();
        if senders.get(host).is_some_and(|(current, _)| *current == generation) {
            senders.remove(host);
        }
        result
    }

    /// Names of the hosts that have a tunnel.
    #[cfg(test)]
    pub(crate) fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<_> = self.lock().keys().cloned().collect();
        hosts.sort();
        hosts
    }

    /// The number of the host's tunnel; each has another.
    #[cfg(test)]
    pub(crate) fn generation(&self, host: &str) -> Option<u64> {
        self.lock().get(host).map(|(generation, _)| *generation)
    }

    /// Whether the host has a tunnel now.
    pub fn is_connected(&self, host: &str) -> bool {
        self.lock().get(host).is_some_and(|(_, sender)| !sender.is_closed())
    }

    /// A TCP connection to a port of a machine.
    pub async fn dial_machine(&self, host: &str, machine_uid: &str, port: u16) -> Result<TunnelStream, TunnelError> {
        let target = machine_target(machine_uid, port);
        self.duplex(host, DIAL_PATH.into(), Some(&target)).await
    }

    /// The serial console of a machine; the first bytes are its last output.
    pub async fn console(&self, host: &str, machine_uid: &str) -> Result<TunnelStream, TunnelError> {
        self.duplex(host, console_path(machine_uid), None).await
    }

    /// Does something with a running machine; returns when it is done.
    pub async fn act(&self, host: &str, machine_uid: &str, action: MachineAction) -> Result<(), TunnelError> {
        let body = Empty::new().map_err(|never| match never {}).boxed();
        self.ask(host, Method::POST, action_path(machine_uid, action), None, body).await.map(|_| ())
    }

    /// The logs of a service's replicas on this host.
    pub async fn service_log(
        &self,
        host: &str,
        (namespace, service): (&str, &str),
        options: LogOptions,
    ) -> Result<LogAnswer, TunnelError> {
        let answer = self.get(host, service_log_path(namespace, service, options)).await?;
        let written = answer.headers().get(WRITTEN_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(LogAnswer { written: written.unwrap_or(0), body: answer.into_body() })
    }

    /// Returns the end of a machine's output on its serial console.
    pub async fn serial_log(&self, host: &str, machine_uid: &str, tail_bytes: u64) -> Result<Incoming, TunnelError> {
        Ok(self.get(host, serial_log_path(machine_uid, tail_bytes)).await?.into_body())
    }

    /// Returns the same for the previous run of a virtual machine.
    pub async fn previous_serial_log(
        &self,
        host: &str,
        virtual_machine_uid: &str,
        tail_bytes: u64,
    ) -> Result<Incoming, TunnelError> {
        Ok(self.get(host, previous_serial_log_path(virtual_machine_uid, tail_bytes)).await?.into_body())
    }

    /// The metrics of the process at the other end. Scrapes are frequent and cover many hosts, so an absent tunnel is not waited for,
    /// and a silent one not long.
    pub async fn metrics(&self, host: &str) -> Result<Bytes, TunnelError> {
        if !self.is_connected(host) {
            return Err(TunnelError::NotConnected { host: host.to_owned() });
        }
        let asking = async {
            let body = self.get(host, METRICS_PATH.into()).await?.into_body();
            let text = Limited::new(body, MAX_METRICS).collect().await;
            let too_long = |_| TunnelError::Refused {
                status: StatusCode::BAD_GATEWAY,
                message: format!("the metrics of host {host} were cut off, or are longer than {MAX_METRICS} bytes"),
            };
            Ok(text.map_err(too_long)?.to_bytes())
        };
        let late = |_| TunnelError::Late { host: host.to_owned(), seconds: METRICS_DEADLINE.as_secs() };
        tokio::time::timeout(METRICS_DEADLINE, asking).await.map_err(late)?
    }

    async fn get(&self, host: &str, path: String) -> Result<Response<Incoming>, TunnelError> {
        let body = Empty::new().map_err(|never| match never {}).boxed();
        self.ask(host, Method::GET, path, None, body).await
    }

    async fn duplex(&self, host: &str, path: String, target: Option<&str>) -> Result<TunnelStream, TunnelError> {
        let (write, upload) = tokio::io::duplex(UPLOAD_BUFFER);
        let upload =
            StreamBody::new(ReaderStream::with_capacity(upload, UPLOAD_BUFFER).map(|item| item.map(Frame::data)));
        let response = self.ask(host, Method::POST, path, target, BodyExt::boxed(upload)).await?;
        let download = response.into_body().into_data_stream().map_err(io::Error::other);
        Ok(TunnelStream { read: StreamReader::new(Box::pin(download)), write })
    }

    async fn ask(
        &self,
        host: &str,
        method: Method,
        path: String,
        target: Option<&str>,
        body: Body,
    ) -> Result<Response<Incoming>, TunnelError> {
        let broken = |source| TunnelError::Broken { host: host.to_owned(), source };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // HTTP/2 requires an absolute address; this one is not used.
        let uri = format!("http://host{path}").parse();
        *request.uri_mut() = uri.map_err(|_| TunnelError::Refused {
            status: StatusCode::BAD_REQUEST,
            message: format!("{path:?} is no path"),
        })?;
        if let Some(target) = target.and_then(|target| target.parse().ok()) {
            request.headers_mut().insert(TARGET_HEADER, target);
        }
        let mut sender = self.sender(host).await?;
        let asking = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = tokio::time::timeout(ANSWER_DEADLINE, asking)
            .await
            .map_err(|_| TunnelError::Late { host: host.to_owned(), seconds: ANSWER_DEADLINE.as_secs() })?
            .map_err(broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let text = text.map(|text| text.to_bytes()).unwrap_or_default();
        let words = serde_json::from_slice::<serde_json::Value>(&text).ok();
        let message = words.as_ref().and_then(|words| words["message"].as_str()).unwrap_or("no reason given");
        Err(TunnelError::Refused { status, message: message.to_owned() })
    }

    /// The host's tunnel; waits for one that is about to come.
    async fn sender(&self, host: &str) -> Result<Sender, TunnelError> {
        let mut arrivals = self.shared.arrivals.subscribe();
        let waiting = async {
            loop {
                arrivals.mark_unchanged();
                let sender = self.lock().get(host).map(|(_, sender)| sender.clone());
                if let Some(sender) = sender.filter(|sender| !sender.is_closed()) {
                    return sender;
                }
                if arrivals.changed().await.is_err() {
                    // Cannot be: we hold the other end.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(self.shared.patience, waiting)
            .await
            .map_err(|_| TunnelError::NotConnected { host: host.to_owned() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u64, Sender)>> {
        self.shared.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host's answer to a request for the log of a service.
pub struct LogAnswer {
    /// How many bytes of the body had been written before the request; they are in the order of time.
    pub written: u64,
    /// The lines.
    pub body: Incoming,
}

/// Bytes to and from something on a host. Shutting down the writing side is passed on; dropping ends both.
pub struct TunnelStream {
    read: StreamReader<Pin<Box<dyn futures::Stream<Item = io::Result<Bytes>> + Send>>, Bytes>,
    write: DuplexStream,
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, buffer)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
