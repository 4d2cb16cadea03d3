//! Serves the network: TLS, HTTP/1.1 and HTTP/2, upgrades, limits, graceful shutdown.

mod activity;
mod expiring;
mod slots;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::AsyncBufReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use activity::{Activity, Tracked};
use expiring::Expiring;
use slots::{Slot, Slots};

use crate::http::authn::Peer;
use crate::http::server::ApiServer;

/// The settings of TLS for the connections that are accepted. They can be replaced while the server runs; open connections keep theirs.
#[derive(Clone, Debug)]
pub struct ServerTls(watch::Receiver<Arc<rustls::ServerConfig>>);

impl From<Arc<rustls::ServerConfig>> for ServerTls {
    fn from(settings: Arc<rustls::ServerConfig>) -> Self {
        ServerTls(watch::channel(settings).1)
    }
}

impl From<watch::Receiver<Arc<rustls::ServerConfig>>> for ServerTls {
    fn from(settings: watch::Receiver<Arc<rustls::ServerConfig>>) -> Self {
        ServerTls(settings)
    }
}

impl ServerTls {
    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.borrow().clone())
    }
}

/// Limits of the listeners.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Connections at once. Higher could exhaust file descriptors (some hosts allow only 20,000 for all roles), lower would
    /// refuse clients that only watch.
    pub max_connections: usize,
    /// The time for the TLS handshake and for the head of a request. Longer lets idle connections accumulate, shorter cuts off
    /// slow links.
    pub header_timeout: Duration,
    /// Streams at once on one HTTP/2 connection, as in Kubernetes.
    pub max_streams: u32,
    /// The connections of the total that only members of `reserved_groups` get, so that a flood does not lock out the operators who
    /// could end it.
    pub reserved_connections: usize,
    /// Groups of the platform itself and of its operators.
    pub reserved_groups: Vec<String>,
    /// Connections at once from one address. The gateway's passthrough is one, so it is a share and no estimate of what a client needs.
    pub max_per_address: usize,
    /// A connection without a request for this long is closed. Shorter would make clients that look every minute connect each time.
    pub idle_timeout: Duration,
    /// A connection whose caller is unknown for so long, without a certificate or a token that is good, is closed.
    pub unknown_timeout: Duration,
    /// How long a shutdown waits for running requests.
    pub grace: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions {
            max_connections: 8_192,
            header_timeout: Duration::from_secs(30),
            max_streams: 1_000,
            reserved_connections: 256,
            reserved_groups: ["evroc:operators", "system:nodes", "system:edges"].map(str::to_owned).to_vec(),
            max_per_address: 4_096,
            idle_timeout: Duration::from_secs(90),
            unknown_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// Bytes of a request's head, and of the data read ahead of it: URIs and headers are held in memory before the caller is known.
const HEAD_BYTES: usize = 64 * 1024;

/// The pause between attempts to accept when the process has no file descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

impl ApiServer {
    /// Serves on the listeners until `stop` is cancelled; then ends watches, waits for running requests and returns. `tls` should
    /// ask for client certificates without demanding them and offer `h2` and `http/1.1`.
    ///
    /// # Errors
    /// If a listener fails permanently.
    pub async fn serve(
        &self,
        listeners: Vec<TcpListener>,
        tls: impl Into<ServerTls>,
        options: ServeOptions,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let tls = tls.into();
        let slots = Slots::new(options.max_connections, options.reserved_connections, options.max_per_address);
        let mut tasks = tokio::task::JoinSet::new();
        for listener in listeners {
            let listening = Listening {
                server: self.clone(),
                tls: tls.clone(),
                options: options.clone(),
                slots: slots.clone(),
                stop: stop.clone(),
            };
            tasks.spawn(listening.accept_all(listener));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Listening {
    server: ApiServer,
    tls: ServerTls,
    options: ServeOptions,
    slots: Arc<Slots>,
    stop: CancellationToken,
}

impl Listening {
    async fn accept_all(self, listener: TcpListener) {
        let connections = tokio_util::task::TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => break,
            };
            match accepted {
                Ok((socket, address)) => match self.slots.take(address.ip()) {
                    Some(slot) => {
                        let this = self.clone();
                        connections.spawn(async move { this.serve_connection(socket, address, slot).await });
                    }
                    None => tracing::debug!(%address, "no place for a connection: it is closed"),
                },
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        drop(listener);
        self.server.shut_down();
        connections.close();
        let _ = tokio::time::timeout(self.options.grace, connections.wait()).await;
    }

    async fn serve_connection(&self, socket: TcpStream, address: SocketAddr, slot: Slot) {
        // Events are small and should be sent at once.
        let _ = socket.set_nodelay(true);
        let handshake = tokio::time::timeout(self.options.header_timeout, self.tls.acceptor().accept(socket)).await;
        let mut stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, %address, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let peer = peer_of(stream.get_ref().1, address);
        if slot.is_reserved && !self.may_have_reserved(&peer).await {
            tracing::debug!(%address, "no place for a connection: it is closed");
            return;
        }
        // The first bytes show which HTTP is spoken; a client may wait for ever before it sends them.
        match tokio::time::timeout(self.options.header_timeout, stream.fill_buf()).await {
            Ok(Ok(bytes)) if !bytes.is_empty() => {}
            _ => return,
        }
        let activity = Activity::new();
        let service = {
            let (service, peer, activity) = (self.server.service(), peer.clone(), activity.clone());
            service_fn(move |mut request: Request<Incoming>| {
                let running = activity.begin();
                request.extensions_mut().insert(peer.clone());
                let answering = service.clone().call(request);
                async move { Ok::<_, Infallible>(answering.await?.map(|body| Tracked { body, _running: running })) }
            })
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .max_buf_size(HEAD_BYTES)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.options.max_streams)
            .max_header_list_size(HEAD_BYTES as u32)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(20));
        let stream = TokioIo::new(Expiring::new(stream, peer.clone()));
        let mut connection = pin!(builder.serve_connection_with_upgrades(stream, service));
        let mut exceeded = pin!(activity.exceeded(&peer, self.options.idle_timeout, self.options.unknown_timeout));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = &mut exceeded => None,
            () = self.stop.cancelled() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                // GOAWAY, or no further request after this one; what runs is answered.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    // A client that does not answer to it.
                    () = activity.idle_for(self.options.idle_timeout + self.options.grace) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %address, "connection ended");
        }
    }

    /// Whether the caller of a connection is a member of a group with reserved places.
    async fn may_have_reserved(&self, peer: &Peer) -> bool {
        let authenticator = &self.server.shared.authenticator;
        match authenticator.authenticate(peer, &http::HeaderMap::new()).await {
            Ok(Some(identity)) => self.options.reserved_groups.iter().any(|group| identity.is_in(group)),
            Ok(None) | Err(_) => false,
        }
    }
}

fn peer_of(session: &rustls::ServerConnection, address: SocketAddr) -> Peer {
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificates = certificates.iter().map(|it| it.to_vec()).collect();
    Peer::new(Some(address), certificates, session.server_name().map(Into::into))
}
