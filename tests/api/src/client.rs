//! Requests as they are, and answers whole.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

/// How long an answer, or the next event of a watch, may take: far longer than it does, shorter than a person waits.
const PATIENCE: Duration = Duration::from_secs(15);

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body, where it is JSON; else the text as a JSON string.
    pub body: Value,
}

impl Answer {
    /// The values of a header that may occur several times.
    pub fn header_values(&self, name: &str) -> Vec<String> {
        self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }
}

/// Sends requests to one server.
#[derive(Clone)]
pub struct Client(kube::Client);

impl Client {
    /// A client with the server and the credentials of a kubeconfig.
    ///
    /// # Errors
    /// If the file cannot be read or names nothing usable.
    pub async fn from_kubeconfig(path: &std::path::Path) -> Result<Self> {
        // An error means that it was installed before, by another client of this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig =
            kube::config::Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .with_context(|| format!("use {}", path.display()))?;
        config.read_timeout = None;
        // An answer of 429, 503 or 504 is an answer.
        config.default_retry = false;
        Ok(Client(kube::Client::try_from(config).context("make a client")?))
    }

    /// Sends a request and reads the whole answer.
    ///
    /// A server may end a connection at the moment at which the pool hands it out again; then the request goes once more.
    ///
    /// # Errors
    /// If the connection fails or the answer does not come to its end in time.
    pub async fn respond(&self, request: Request<Bytes>) -> Result<Answer> {
        match self.once(request.clone()).await {
            Err(error) if format!("{error:#}").contains("connection closed before message completed") => {
                self.once(request).await
            }
            answer => answer,
        }
    }

    async fn once(&self, request: Request<Bytes>) -> Result<Answer> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = async {
            let response = self.0.send(request.map(|body| Body::from(body.to_vec()))).await?;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await?.to_bytes();
            let body = serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
            anyhow::Ok(Answer { code: parts.status.as_u16(), headers: parts.headers, body })
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.with_context(|| format!("{what}: no answer within {} s", PATIENCE.as_secs()))?.with_context(|| what)
    }

    /// Sends a body of a media type.
    ///
    /// # Errors
    /// As [`Client::respond`].
    pub async fn send(&self, method: Method, path: &str, media_type: &str, body: impl Into<Bytes>) -> Result<Answer> {
        let request = Request::builder().method(method).uri(path).header("user-agent", "suite/1");
        let request = request.header("content-type", media_type).header("accept", "application/json");
        self.respond(request.body(body.into()).with_context(|| format!("make a request for {path}"))?).await
    }

    /// Opens a stream; the answer itself where the server refuses.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn watch(&self, path: &str, accept: &str) -> Result<Result<Events, Answer>> {
        let request = Request::get(path).header("user-agent", "suite/1").header("accept", accept);
        let request = request.body(Body::empty()).with_context(|| format!("make a request for {path}"))?;
        let response = tokio::time::timeout(PATIENCE, self.0.send(request)).await.context("open a watch")??;
        let (parts, body) = response.into_parts();
        if parts.status == 200 {
            return Ok(Ok(Events { body, buffer: Vec::new() }));
        }
        let bytes = body.collect().await?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Err(Answer { code: parts.status.as_u16(), headers: parts.headers, body }))
    }
}

/// The lines of a watch.
pub struct Events {
    body: Body,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` if the watch has ended.
    ///
    /// # Errors
    /// If the stream breaks, none comes in time, or a line is no JSON.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).context("read an event");
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            match frame.with_context(|| format!("no event within {} s", PATIENCE.as_secs()))? {
                None => return Ok(None),
                Some(frame) => {
                    if let Some(data) = frame.context("read a watch")?.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
