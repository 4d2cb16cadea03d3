//! Serves the network: TLS, HTTP/1.1 and HTTP/2, upgrades, limits, graceful shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::http::authn::Peer;
use crate::http::server::ApiServer;

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
    /// How long a shutdown waits for running requests.
    pub grace: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions {
            max_connections: 8_192,
            header_timeout: Duration::from_secs(30),
            max_streams: 1_000,
            grace: Duration::from_secs(10),
        }
    }
}

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
        tls: Arc<rustls::ServerConfig>,
        options: ServeOptions,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let acceptor = TlsAcceptor::from(tls);
        let slots = Arc::new(Semaphore::new(options.max_connections));
        let mut tasks = tokio::task::JoinSet::new();
        for listener in listeners {
            let listening = Listening {
                server: self.clone(),
                acceptor: acceptor.clone(),
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
    acceptor: TlsAcceptor,
    options: ServeOptions,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Listening {
    async fn accept_all(self, listener: TcpListener) {
        let graceful = Arc::new(GracefulShutdown::new());
        let connections = tokio_util::task::TaskTracker::new();
        loop {
            let slot = tokio::select! {
                slot = self.slots.clone().acquire_owned() => slot,
                () = self.stop.cancelled() => break,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => break,
            };
            match accepted {
                Ok((socket, address)) => {
                    let (this, watcher) = (self.clone(), graceful.watcher());
                    connections.spawn(async move {
                        let _slot = slot;
                        this.serve_connection(socket, address, watcher).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        drop(listener);
        self.server.shut_down();
        connections.close();
        if let Some(graceful) = Arc::into_inner(graceful) {
            let _ = tokio::time::timeout(self.options.grace, graceful.shutdown()).await;
        }
    }

    async fn serve_connection(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        watcher: hyper_util::server::graceful::Watcher,
    ) {
        // Events are small and should be sent at once.
        let _ = socket.set_nodelay(true);
        let handshake = tokio::time::timeout(self.options.header_timeout, self.acceptor.accept(socket)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, %address, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let peer = peer_of(stream.get_ref().1, address);
        let service = self.server.service();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            service.clone().call(request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.options.max_streams)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, %address, "connection ended");
        }
    }
}

fn peer_of(session: &rustls::ServerConnection, address: SocketAddr) -> Peer {
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificates = certificates.iter().map(|it| it.to_vec()).collect();
    Peer::new(Some(address), certificates, session.server_name().map(Into::into))
}
