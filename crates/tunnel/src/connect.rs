//! Opening the tunnel, and opening it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::protocol::{PROTOCOL, TunnelKind, tunnel_path};
use crate::{TunnelHandler, serve_connection};

/// First pause before trying again; doubled up to [`MAX_PAUSE`]. Control restarts in well under a second.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// Higher means that a host is unreachable for longer after control was away; lower makes many hosts storm a control that is starting.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A tunnel that lived this long was good: the next failure begins with short pauses again.
const GOOD_LIFE: Duration = Duration::from_secs(10);
/// For each of connecting, TLS and upgrading.
const STEP_DEADLINE: Duration = Duration::from_secs(10);

/// The address that a tunnel is opened to, and the identity that opens it.
#[derive(Clone)]
pub struct TunnelConfig {
    /// The API, such as `https://127.0.0.1:6443`; plain `http` is for tests.
    pub api: Uri,
    /// The name of this host's object.
    pub host: String,
    /// The kind of its owner.
    pub kind: TunnelKind,
    /// The roots to trust and the certificate to show. When they change, a new tunnel is opened with the new ones, for all streams that
    /// begin; the former goes on until its streams have ended.
    pub tls: watch::Receiver<Arc<rustls::ClientConfig>>,
}

/// The reason why a tunnel could not be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConnectError {
    #[error("{api} is not the address of an API: expected https://<host>:<port>")]
    Address { api: Uri },
    #[error("connect to {authority}")]
    Connect {
        authority: String,
        #[source]
        source: std::io::Error,
    },
    #[error("request a tunnel from {authority}")]
    Ask {
        authority: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{authority} answered {status} instead of opening a tunnel")]
    Refused { authority: String, status: StatusCode },
    #[error("no answer from {authority} within {} s", STEP_DEADLINE.as_secs())]
    Late { authority: String },
}

/// Keeps a tunnel open and serves it with `handler`, until dropped.
pub async fn keep_connected(mut config: TunnelConfig, handler: Arc<dyn TunnelHandler>) {
    let mut pause = MIN_PAUSE;
    let mut is_reported = false;
    // Tunnels that another has taken the place of; control ends each when its last stream has ended.
    let mut former = JoinSet::new();
    loop {
        while former.try_join_next().is_some() {}
        config.tls.mark_unchanged();
        let result = match open(&config).await {
            Ok(upgraded) => {
                tracing::info!(host = config.host, "tunnel to control is open");
                is_reported = false;
                let opened = Instant::now();
                let mut serving = Box::pin(serve_connection(upgraded, handler.clone()));
                let result = tokio::select! {
                    result = serving.as_mut() => result,
                    () = changed(&mut config.tls) => {
                        former.spawn(serving);
                        continue;
                    }
                };
                if opened.elapsed() > GOOD_LIFE {
                    pause = MIN_PAUSE;
                }
                result.map_err(|error| error.to_string())
            }
            Err(error) => Err(with_causes(&error)),
        };
        // Once, not at every try of a long outage.
        if let Err(error) = result
            && !is_reported
        {
            tracing::warn!(host = config.host, error, "no tunnel to control; trying again");
            is_reported = true;
        }
        tokio::time::sleep(pause + jitter(pause)).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Waits for a change; for ever where its sender was dropped.
async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn open(config: &TunnelConfig) -> Result<hyper::upgrade::Upgraded, ConnectError> {
    let address = || ConnectError::Address { api: config.api.clone() };
    let is_tls = config.api.scheme_str() == Some("https");
    let name = config.api.host().ok_or_else(address)?.trim_matches(['[', ']']).to_owned();
    let port = config.api.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let authority = format!("{name}:{port}");
    let connect = |source| ConnectError::Connect { authority: authority.clone(), source };
    let late = |_| ConnectError::Late { authority: authority.clone() };

    let connecting = TcpStream::connect((name.as_str(), port));
    let stream = tokio::time::timeout(STEP_DEADLINE, connecting).await.map_err(late)?.map_err(connect)?;
    stream.set_nodelay(true).map_err(connect)?;
    let upgrading = async {
        if is_tls {
            let mut tls = (**config.tls.borrow()).clone();
            // HTTP/2 has no such upgrade.
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            let server = ServerName::try_from(name.clone()).map_err(|_| address())?;
            let stream =
                tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(server, stream).await.map_err(connect)?;
            upgrade(config, &authority, TokioIo::new(stream)).await
        } else {
            upgrade(config, &authority, TokioIo::new(stream)).await
        }
    };
    tokio::time::timeout(STEP_DEADLINE, upgrading).await.map_err(late)?
}

async fn upgrade<I>(config: &TunnelConfig, authority: &str, io: I) -> Result<hyper::upgrade::Upgraded, ConnectError>
where
    I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let ask = |source| ConnectError::Ask { authority: authority.to_owned(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(ask)?;
    let driver = tokio::spawn(connection.with_upgrades());
    let path = tunnel_path(&config.host, config.kind);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().map_err(|_| ConnectError::Address { api: config.api.clone() })?;
    for (name, value) in [
        (header::HOST, authority),
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, PROTOCOL),
        (header::USER_AGENT, "evroc-tunnel"),
    ] {
        if let Ok(value) = value.parse() {
            request.headers_mut().insert(name, value);
        }
    }
    let response = sender.send_request(request).await.map_err(ask)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        driver.abort();
        return Err(ConnectError::Refused { authority: authority.to_owned(), status: response.status() });
    }
    hyper::upgrade::on(response).await.map_err(ask)
}

/// Up to half of the pause, so that hosts that lost control together do not come back together.
fn jitter(pause: Duration) -> Duration {
    let random = u32::from_le_bytes(uuid::Uuid::new_v4().as_bytes()[..4].try_into().unwrap_or_default());
    pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
