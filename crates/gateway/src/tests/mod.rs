//! The data path against containers played by tasks: the real gateway, TLS and HTTP over connections in memory.
//!
//! Most tests run in virtual time, see [`time`]: there a pause means "until nothing happens any more" and costs nothing.

mod drain;
mod follow;
mod greeting;
mod lost;
mod metrics;
mod reports;
mod stream;
pub mod time;
mod traces;
mod wire;
mod zero;

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evroc_metrics::Registry;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::connect::{Dial, Stream};
use crate::metrics::Metrics;
use crate::serve::{Gateway, Settings};
use crate::table::{Key, Replica, Requests, Route, Table};

type Body = BoxBody<Bytes, Infallible>;

const HOST: &str = "svc-a.evroc.localhost";

fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

fn key(name: &str) -> Key {
    Key { namespace: "demo".into(), name: name.into() }
}

fn replica(name: &str) -> Replica {
    let uid = format!("uid-of-{name}");
    Replica { uid, key: key(name), revision: key("a-1"), port: 8080, ready: true, draining: false }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", HOST).body(text("")).unwrap()
}

fn post(path: &str, body: &'static str) -> Request<Body> {
    Request::post(path).header("host", HOST).body(text(body)).unwrap()
}

/// Until nothing happens any more; in virtual time only.
async fn settled() {
    time::pass(Duration::from_millis(1)).await;
}

/// Takes connections as a replica does.
type Container = Arc<dyn Fn(DuplexStream) + Send + Sync>;

/// Connects to containers by the replica's uid; an absent one refuses.
#[derive(Default)]
struct FakeDial {
    containers: Mutex<HashMap<String, Container>>,
    dialled: Mutex<Vec<String>>,
}

#[async_trait]
impl Dial for FakeDial {
    async fn dial(&self, uid: &str, _port: u16) -> io::Result<Box<dyn Stream>> {
        self.dialled.lock().unwrap().push(uid.to_owned());
        let container = self.containers.lock().unwrap().get(uid).cloned();
        // Concurrent dials are all counted before any is answered.
        tokio::task::yield_now().await;
        let container = container.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        container(theirs);
        Ok(Box::new(ours))
    }
}

/// A container that answers HTTP/1.1 and HTTP/2.
fn http<F, R>(answer: F) -> Container
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    Arc::new(move |stream| {
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    })
}

/// A container that sends one of the answers on each connection, after the head of a request; then it
/// closes without an answer. Returns the heads that it read.
fn scripted(answers: &[&'static str]) -> (Container, Arc<Mutex<Vec<String>>>) {
    let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect::<Vec<_>>()));
    let heads = Arc::new(Mutex::new(vec![]));
    let seen = heads.clone();
    let container = move |mut stream: DuplexStream| {
        let (answers, seen) = (answers.clone(), seen.clone());
        tokio::spawn(async move {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            seen.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
            let answer = answers.lock().unwrap().pop();
            if let Some(answer) = answer {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
    };
    (Arc::new(container), heads)
}

/// A gateway and what surrounds it.
struct World {
    gateway: Arc<Gateway>,
    registry: Registry,
    table: Arc<Table>,
    dial: Arc<FakeDial>,
    graceful: GracefulShutdown,
    stop: CancellationToken,
    certificate: CertificateDer<'static>,
}

/// A certificate for all names of the domain, and its key.
fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["*.evroc.localhost".to_owned()]).unwrap();
    (made.cert.der().clone(), PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()))
}

fn unused_api() -> kube::Client {
    let never =
        |_: Request<kube::client::Body>| std::future::pending::<Result<Response<kube::client::Body>, Infallible>>();
    kube::Client::new(tower::service_fn(never), "default")
}

fn settings(control: SocketAddr) -> Settings {
    let control_names = &["api", "registry"];
    Settings { domain: "evroc.localhost".into(), control, control_names, metrics: Registry::default() }
}

impl World {
    /// With one service whose revision `a-1` has no replica.
    fn new() -> Self {
        Self::with_control(([127, 0, 0, 1], 1).into())
    }

    fn with_control(control: SocketAddr) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (certificate, key) = certificate();
        let tls = ServerConfig::builder().with_no_client_auth();
        let tls = tls.with_single_cert(vec![certificate.clone()], key).unwrap();
        let dial = Arc::new(FakeDial::default());
        let settings = settings(control);
        let registry = settings.metrics.clone();
        let gateway = Gateway::new(settings, tls, unused_api(), dial.clone());
        let table = gateway.table();
        table.set_complete();
        table.set_route(HOST, Some(Route::To(self::key("a-1"))));
        let (graceful, stop) = (GracefulShutdown::new(), CancellationToken::new());
        Self { gateway: Arc::new(gateway), registry, table, dial, graceful, stop, certificate }
    }

    /// A ready replica that is played by `container`.
    fn start(&self, name: &str, container: Container) {
        self.place(name, container);
        self.table.set_replica(replica(name));
    }

    /// A container that accepts connections although its replica is not reported as ready.
    fn place(&self, name: &str, container: Container) {
        self.dial.containers.lock().unwrap().insert(replica(name).uid, container);
    }

    fn dialled(&self) -> usize {
        self.dial.dialled.lock().unwrap().len()
    }

    fn requests(&self) -> (i32, i32) {
        let Requests { waiting, in_flight, .. } = self.table.requests().get(&key("a-1")).copied().unwrap_or_default();
        (waiting, in_flight)
    }

    /// Lets the gateway serve the other end of a new connection.
    fn accept(&self) -> (DuplexStream, JoinHandle<io::Result<()>>) {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (gateway, watch, stop) = (self.gateway.clone(), self.graceful.watcher(), self.stop.clone());
        let peer = SocketAddr::from(([192, 0, 2, 7], 5000));
        let served = tokio::spawn(async move { gateway.connection(server, peer, watch, &stop).await });
        (client, served)
    }

    fn client_config(&self, protocol: &str) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        config
    }

    async fn tls(&self, protocol: &str) -> TlsStream<DuplexStream> {
        let connector = TlsConnector::from(Arc::new(self.client_config(protocol)));
        connector.connect(ServerName::try_from(HOST).unwrap(), self.accept().0).await.unwrap()
    }

    async fn http1(&self) -> http1::SendRequest<Body> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.tls("http/1.1").await)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    async fn http2(&self) -> http2::SendRequest<Body> {
        let stream = TokioIo::new(self.tls("h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Sends one request on a connection of its own; status and text of the answer.
    async fn ask(&self, request: Request<Body>) -> (u16, String) {
        whole(self.http1().await.send_request(request).await.unwrap()).await
    }
}

/// Status and text of an answer.
async fn whole(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
