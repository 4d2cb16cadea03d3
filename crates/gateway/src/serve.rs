//! Accepts connections and serves each to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use evroc_metrics::{Held, Registry};
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

use crate::activity::Activity;
use crate::admission::{self, Admission};
use crate::connect::{Dial, Pool, Stream};
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::sniff::{Greeting, Rewound, first_words, greeting};
use crate::table::Table;
use crate::{drain, follow, load, time};

/// The longest that a client may take for its TLS greeting.
pub(crate) const GREETING: Duration = Duration::from_secs(15);
/// The same for connections that came just before the gateway stops.
const LAST_GREETING: Duration = Duration::from_millis(500);
/// The longest that a client may take for the headers of a request, or be idle between two. Too low closes connections that
/// clients are about to use again; too high keeps unused sockets.
pub(crate) const HEADERS: Duration = Duration::from_secs(60);
/// The longest that requests under way may take when the gateway stops: less than its supervisor waits. Connections wait
/// meanwhile.
const FAREWELL: Duration = Duration::from_secs(8);
/// TCP keep-alive: the idle time before the first probe, the pause between two, and the number of probes without an answer. Without it a
/// client that vanished would keep a container running for ever.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;
/// How long a client may go on sending after control has ended its side of a connection. Too low cuts clients off that have not read
/// the end yet; too high keeps sockets for clients that never close.
pub(crate) const LINGER: Duration = Duration::from_secs(30);

/// The settings of a gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cloud's domain.
    pub domain: String,
    /// The address at which control serves its own names.
    pub control: SocketAddr,
    /// The names below the domain that control serves: `api`, `registry`…
    pub control_names: &'static [&'static str],
    /// Where the gateway's metrics are added.
    pub metrics: Registry,
}

/// The settings of TLS for the connections that a gateway accepts. Open connections keep theirs.
#[derive(Clone)]
pub struct GatewayTls(Arc<RwLock<Arc<ServerConfig>>>);

impl GatewayTls {
    fn new(settings: ServerConfig) -> Self {
        Self(Arc::new(RwLock::new(Self::offering_http(settings))))
    }

    /// Replaces the settings.
    pub fn replace(&self, settings: ServerConfig) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Self::offering_http(settings);
    }

    fn offering_http(mut settings: ServerConfig) -> Arc<ServerConfig> {
        settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(settings)
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The gateway.
pub struct Gateway {
    settings: Settings,
    tls: GatewayTls,
    admission: Arc<Admission>,
    client: Client,
    proxy: Arc<Proxy>,
}

impl Gateway {
    /// Makes a gateway that terminates TLS with `tls`, reads the API through `client` and reaches replicas through `dial`.
    pub fn new(settings: Settings, tls: ServerConfig, client: Client, dial: Arc<dyn Dial>) -> Self {
        let table = Arc::<Table>::default();
        table.measure(&settings.metrics);
        let proxy = Proxy {
            metrics: Metrics::new(&settings.metrics),
            table,
            pool: Arc::new(Pool::new(dial)),
            domain: settings.domain.clone(),
            control_names: settings.control_names,
        };
        let admission = Admission::new(admission::MOST);
        Self { settings, tls: GatewayTls::new(tls), admission, client, proxy: Arc::new(proxy) }
    }

    /// The gateway's TLS, for who replaces its certificate while it runs.
    pub fn tls(&self) -> GatewayTls {
        self.tls.clone()
    }

    /// The table of routes, for those who feed it by other means than the API.
    pub fn table(&self) -> Arc<Table> {
        self.proxy.table.clone()
    }

    /// The metrics.
    #[cfg(test)]
    pub(crate) fn metrics(&self) -> Arc<Metrics> {
        self.proxy.metrics.clone()
    }

    /// Serves until `stop`; then lets the requests under way finish.
    pub async fn run(self, listeners: Vec<TcpListener>, stop: CancellationToken) {
        let (table, pool) = (self.proxy.table.clone(), self.proxy.pool.clone());
        let background = [
            tokio::spawn(follow::services(self.client.clone(), table.clone(), self.proxy.metrics.clone())),
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
            Greeting::Tls(Some(name), stream) if self.is_controls(&name) => {
                let control = TcpStream::connect(self.settings.control).await?;
                control.set_nodelay(true)?;
                pass_through(stream, control).await
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
        let stream = soon(GREETING, "TLS was not agreed on", stop, self.tls.acceptor().accept(stream)).await?;
        let stream = soon(HEADERS, "no request", stop, first_words(stream)).await?;
        let (proxy, activity) = (self.proxy.clone(), Arc::new(Activity::default()));
        let used = activity.clone();
        let service = service_fn(move |request| {
            let (proxy, use_) = (proxy.clone(), used.begin());
            async move {
                let response = proxy.handle(request, peer).await;
                Ok::<_, std::convert::Infallible>(response.map(|body| use_.until_the_end_of(body)))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(time::timer()).header_read_timeout(HEADERS);
        let ping = Some(Duration::from_secs(30));
        builder.http2().timer(time::timer()).max_concurrent_streams(250).keep_alive_interval(ping);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let own = GracefulShutdown::new();
        let mut connection = std::pin::pin!(own.watch(connection));
        // The gateway's own end waits for this connection as long as its watcher exists.
        let _watch = watch;
        tokio::select! {
            ended = &mut connection => return ended.map_err(io::Error::other),
            () = stop.cancelled() => {}
            () = activity.idle_for(HEADERS) => {}
        }
        // The signal is sent by the first poll; the end of the connection is what counts.
        let signal = async {
            own.shutdown().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = connection => ended.map_err(io::Error::other),
            () = signal => Ok(()),
        }
    }

    fn is_controls(&self, name: &str) -> bool {
        let own = name.strip_suffix(&self.settings.domain).and_then(|rest| rest.strip_suffix('.'));
        own.is_some_and(|own| self.settings.control_names.contains(&own))
    }
}

/// Copies between a client and control until both directions have ended, or control has and the client does not close in time.
pub(crate) async fn pass_through(client: impl Stream, control: impl Stream) -> io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_control, mut to_control) = tokio::io::split(control);
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_control).await?;
        to_control.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut from_control, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::pin!(up, down);
    tokio::select! {
        done = &mut up => {
            done?;
            down.await
        }
        done = &mut down => {
            done?;
            time::timeout(LINGER, up).await.unwrap_or(Ok(()))
        }
    }
}

/// Bounds the time that a client may take for something; the time is short once the gateway stops.
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
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?)
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
        let Some(place) = gateway.admission.enter(peer) else {
            gateway.proxy.metrics.refused_connections.inc();
            tracing::debug!(%peer, "refused a connection: its address has its share of them");
            continue;
        };
        let (gateway, watch, stop) = (gateway.clone(), graceful.watcher(), stop.clone());
        tokio::spawn(async move {
            let _counted = (place, Held::new(gateway.proxy.metrics.connections.clone()));
            if let Err(error) = prepare(&stream) {
                tracing::debug!(%peer, %error, "cannot set options of a connection");
            }
            if let Err(error) = gateway.connection(stream, peer, watch, &stop).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
}
