//! Closed loops: each worker has a connection of its own and sends its next request when the last one was answered.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;

/// How to reach a server, read once from its kubeconfig.
#[derive(Clone)]
pub struct Endpoint {
    base: String,
    config: kube::Config,
}

/// A request to send.
pub struct Sent {
    pub method: Method,
    /// With the query.
    pub path: String,
    pub media_type: &'static str,
    pub body: Bytes,
    header: Option<(&'static str, String)>,
}

impl Sent {
    /// A request with a body.
    pub fn new(method: Method, path: String, media_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { method, path, media_type, body: body.into(), header: None }
    }

    /// With one more header.
    pub fn header(self, name: &'static str, value: String) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

/// One connection, opened again where the server closes it.
pub struct Connection {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// The result of a loop.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests that were answered, per second.
    pub per_second: f64,
    /// The 99th percentile of the answers' times.
    pub p99: Duration,
    /// How many were answered.
    pub count: usize,
}

impl Endpoint {
    /// Reads a kubeconfig.
    pub async fn read(kubeconfig: &Path) -> Result<Self> {
        let text = kube::config::Kubeconfig::read_from(kubeconfig)
            .with_context(|| format!("read {}", kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(text, &kube::config::KubeConfigOptions::default()).await?;
        let base = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        Ok(Self { base, config })
    }

    /// A connection of its own.
    pub fn connect(&self) -> Result<Connection> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // As every client of Kubernetes: otherwise a server that sends nothing after the handshake has the first request after 40 ms.
        tcp.set_nodelay(true);
        let connector = self.config.rustls_https_connector_with_connector(tcp).context("make a TLS connector")?;
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(Connection { base: self.base.clone(), client })
    }

    /// The same server for another client: with a certificate and its key as PEM, or with neither.
    pub fn of(&self, identity: Option<(&str, &str)>) -> Result<Self> {
        let mut config = self.config.clone();
        config.auth_info = kube::config::AuthInfo::default();
        if let Some((certificate, key)) = identity {
            let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
            config.auth_info.client_certificate_data = Some(encode(certificate));
            config.auth_info.client_key_data = Some(encode(key).into());
        }
        Ok(Self { base: self.base.clone(), config })
    }

    /// A connection for many requests at once, over HTTP/2.
    pub fn connect_shared(&self) -> Result<Connection> {
        let tls = self.config.rustls_client_config().context("make a TLS configuration")?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http2().build();
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build(connector);
        Ok(Connection { base: self.base.clone(), client })
    }
}

impl Connection {
    /// Sends a request; the answer's body is still to come.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(body))?;
        Ok(self.client.request(request).await?)
    }

    /// Sends a request that may be refused.
    pub async fn request(&self, sent: &Sent) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(sent.method.clone())
            .uri(format!("{}{}", self.base, sent.path))
            .header("content-type", sent.media_type);
        if let Some((name, value)) = &sent.header {
            request = request.header(*name, value);
        }
        Ok(self.client.request(request.body(Full::new(sent.body.clone()))?).await?)
    }

    /// Sends a request and reads the whole answer, which has to be a success.
    pub async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let answer = self.send(method, path, body).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

/// Runs `workers` loops for `time`; `request` is given the worker and the number of its request.
pub async fn closed_loop(
    endpoint: &Endpoint,
    workers: usize,
    time: Duration,
    request: impl Fn(usize, usize) -> (Method, String, Bytes) + Clone + Send + 'static,
) -> Result<Outcome> {
    let connections: Vec<Connection> = (0..workers).map(|_| endpoint.connect()).collect::<Result<_>>()?;
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (worker, connection) in connections.into_iter().enumerate() {
        let request = request.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < time {
                let (method, path, body) = request(worker, times.len());
                let sent = Instant::now();
                connection.ask(method, &path, body).await?;
                times.push(sent.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let took = started.elapsed();
    if times.is_empty() {
        bail!("no request was answered within {} s", time.as_secs());
    }
    times.sort_unstable();
    Ok(Outcome { per_second: times.len() as f64 / took.as_secs_f64(), p99: percentile(&times, 99), count: times.len() })
}

/// A percentile of sorted times.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The middle of several values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
