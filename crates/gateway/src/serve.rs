//! Taking connections in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use kube::Client;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::connect::{Dial, Pool};
use crate::proxy::Proxy;
use crate::sniff::{Rewound, server_name};
use crate::table::Table;
use crate::{drain, follow, load};

/// The longest that a client may take for its TLS greeting or the headers of a request.
const GREETING: Duration = Duration::from_secs(15);
/// The longest that requests under way may take when the gateway stops.
const FAREWELL: Duration = Duration::from_secs(20);

/// What a gateway is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cloud's domain.
    pub domain: String,
    /// Where control takes connections for its own names.
    pub control: SocketAddr,
}

/// The gateway.
pub struct Gateway {
    settings: Settings,
    tls: TlsAcceptor,
    client: Client,
    proxy: Arc<Proxy>,
}

impl Gateway {
    /// A gateway that ends TLS with `tls`, reads the API through `client` and reaches replicas through `dial`.
    pub fn new(settings: Settings, mut tls: ServerConfig, client: Client, dial: Arc<dyn Dial>) -> Self {
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let proxy = Proxy { table: Arc::default(), pool: Arc::new(Pool::new(dial)), domain: settings.domain.clone() };
        Self { settings, tls: TlsAcceptor::from(Arc::new(tls)), client, proxy: Arc::new(proxy) }
    }

    /// The table of routes, for those who feed it by other means than the API.
    pub fn table(&self) -> Arc<Table> {
        self.proxy.table.clone()
    }

    /// Serves until `stop`; then lets the requests under way finish.
    pub async fn run(self, listeners: Vec<TcpListener>, stop: CancellationToken) {
        let (table, pool) = (self.proxy.table.clone(), self.proxy.pool.clone());
        let background = [
            tokio::spawn(follow::services(self.client.clone(), table.clone())),
            tokio::spawn(follow::replicas(self.client.clone(), table.clone())),
            tokio::spawn(load::report(self.client.clone(), table.clone())),
            tokio::spawn(drain::release(self.client.clone(), table, pool)),
        ];
        let gateway = Arc::new(self);
        let graceful = Arc::new(GracefulShutdown::new());
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| tokio::spawn(accept(gateway.clone(), listener, graceful.clone(), stop.clone())))
            .collect();
        for task in accepting {
            if let Err(error) = task.await {
                tracing::error!(%error, "a listener of the gateway failed");
            }
        }
        drop(gateway);
        if let Some(graceful) = Arc::into_inner(graceful)
            && tokio::time::timeout(FAREWELL, graceful.shutdown()).await.is_err()
        {
            tracing::warn!("requests were still under way when the gateway stopped");
        }
        background.iter().for_each(tokio::task::JoinHandle::abort);
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, watch: hyper_util::server::graceful::Watcher) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let sniffed = tokio::time::timeout(GREETING, server_name(stream)).await;
        let (name, mut stream) = sniffed.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS greeting"))??;
        if name.is_some_and(|name| self.is_controls(&name)) {
            let mut control = TcpStream::connect(self.settings.control).await?;
            control.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut stream, &mut control).await?;
            return Ok(());
        }
        self.requests(stream, peer, watch).await
    }

    async fn requests(&self, stream: Rewound<TcpStream>, peer: SocketAddr, watch: hyper_util::server::graceful::Watcher) -> io::Result<()> {
        let accepted = tokio::time::timeout(GREETING, self.tls.accept(stream)).await;
        let stream = accepted.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS was not agreed on"))??;
        let proxy = self.proxy.clone();
        let service = service_fn(move |request| {
            let proxy = proxy.clone();
            async move { Ok::<_, std::convert::Infallible>(proxy.handle(request, peer).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250).keep_alive_interval(Some(Duration::from_secs(30)));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        watch.watch(connection.into_owned()).await.map_err(io::Error::other)
    }

    fn is_controls(&self, name: &str) -> bool {
        let own = name.strip_suffix(&self.settings.domain).and_then(|rest| rest.strip_suffix('.'));
        matches!(own, Some("api" | "iam" | "console" | "registry"))
    }
}

async fn accept(gateway: Arc<Gateway>, listener: TcpListener, graceful: Arc<GracefulShutdown>, stop: CancellationToken) {
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, for example: connections wait until some are free again.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (gateway, watch) = (gateway.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Err(error) = gateway.connection(stream, peer, watch).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
}
