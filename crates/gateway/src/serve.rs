//! Taking connections in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use kube::Client;
use rustix::net::sockopt;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::connect::{Dial, Pool, Stream};
use crate::proxy::Proxy;
use crate::sniff::{Greeting, Rewound, first_words, greeting};
use crate::table::Table;
use crate::{drain, follow, load, time};

/// The longest that a client may take for its TLS greeting.
pub(crate) const GREETING: Duration = Duration::from_secs(15);
/// The same for connections that came just before the gateway stops.
const LAST_GREETING: Duration = Duration::from_millis(500);
/// The longest that a client may take for the headers of a request, or be idle between two. Too low closes connections that
/// clients are about to use again; too high keeps sockets for nobody.
pub(crate) const HEADERS: Duration = Duration::from_secs(60);
/// The longest that requests under way may take when the gateway stops: less than its supervisor waits. Connections wait
/// meanwhile.
const FAREWELL: Duration = Duration::from_secs(8);
/// After so long without a word, a client is asked whether it is still there, so often, so many times. Without it a client that
/// vanished would keep a container running for ever.
const STILL_THERE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

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
            && time::timeout(FAREWELL, graceful.shutdown()).await.is_err()
        {
            tracing::warn!("requests were still under way when the gateway stopped");
        }
        background.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// Serves one connection to its end.
    pub(crate) async fn connection<S: Stream + 'static>(
        &self,
        stream: S,
        peer: SocketAddr,
        watch: Watcher,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let greeting = soon(GREETING, "no TLS greeting", stop, greeting(stream)).await?;
        match greeting {
            Greeting::Other(mut stream, words) => {
                stream.write_all(&words).await?;
                stream.shutdown().await
            }
            Greeting::Tls(Some(name), mut stream) if self.is_controls(&name) => {
                let mut control = TcpStream::connect(self.settings.control).await?;
                control.set_nodelay(true)?;
                tokio::io::copy_bidirectional(&mut stream, &mut control).await.map(|_| ())
            }
            Greeting::Tls(_, stream) => self.requests(stream, peer, watch, stop).await,
        }
    }

    async fn requests<S: Stream + 'static>(
        &self,
        stream: Rewound<S>,
        peer: SocketAddr,
        watch: Watcher,
        stop: &CancellationToken,
    ) -> io::Result<()> {
        let stream = soon(GREETING, "TLS was not agreed on", stop, self.tls.accept(stream)).await?;
        let stream = soon(HEADERS, "no request", stop, first_words(stream)).await?;
        let proxy = self.proxy.clone();
        let service = service_fn(move |request| {
            let proxy = proxy.clone();
            async move { Ok::<_, std::convert::Infallible>(proxy.handle(request, peer).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(time::timer()).header_read_timeout(HEADERS);
        let ping = Some(Duration::from_secs(30));
        builder.http2().timer(time::timer()).max_concurrent_streams(250).keep_alive_interval(ping);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        watch.watch(connection.into_owned()).await.map_err(io::Error::other)
    }

    fn is_controls(&self, name: &str) -> bool {
        let own = name.strip_suffix(&self.settings.domain).and_then(|rest| rest.strip_suffix('.'));
        matches!(own, Some("api" | "iam" | "console" | "registry"))
    }
}

/// What a client has to do in its time; shortly, once the gateway stops.
async fn soon<T>(
    time: Duration,
    without: &'static str,
    stop: &CancellationToken,
    done: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let last = async {
        stop.cancelled().await;
        time::sleep(LAST_GREETING).await;
    };
    let done = time::timeout(time, done);
    tokio::select! {
        done = done => done.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, without))),
        () = last => Err(io::Error::new(io::ErrorKind::Interrupted, without)),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, STILL_THERE.0)?;
    sockopt::set_tcp_keepintvl(stream, STILL_THERE.1)?;
    Ok(sockopt::set_tcp_keepcnt(stream, STILL_THERE.2)?)
}

async fn accept(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    graceful: Arc<GracefulShutdown>,
    stop: CancellationToken,
) {
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, for example: connections wait until some are free again.
                    tracing::warn!(%error, "cannot accept a connection");
                    time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (gateway, watch, stop) = (gateway.clone(), graceful.watcher(), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = prepare(&stream) {
                tracing::debug!(%peer, %error, "cannot set options of a connection");
            }
            if let Err(error) = gateway.connection(stream, peer, watch, &stop).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
}
