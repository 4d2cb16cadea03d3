//! Sends the messages of the exporter with the HTTP client of the role's runtime.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;

use super::pauses::Pauses;

/// The most of an answer that is read.
const MOST: usize = 64 * 1024;

/// A client whose connections live on a runtime; its caller may be any thread.
#[derive(Debug)]
pub struct Client {
    runtime: Handle,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    answer: Duration,
    pauses: Arc<Mutex<Pauses>>,
}

impl Client {
    /// A client that waits this long for an answer.
    pub fn new(runtime: Handle, answer: Duration) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { runtime, http, answer, pauses: Arc::default() }
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (http, answer) = (self.http.clone(), self.answer);
        // The exporter's thread belongs to no runtime.
        let sending = self.runtime.spawn(async move {
            let answered = async {
                let (parts, body) = http.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, MOST).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::from_parts(parts, body))
            };
            let late = || format!("no answer within {} s", answer.as_secs());
            tokio::time::timeout(answer, answered).await.unwrap_or_else(|_| Err(late().into()))
        });
        let response = sending.await??;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(format!("the answer is {status}").into()),
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let url = request.uri().to_string();
        if !self.pauses().may_send(Instant::now()) {
            return Err("dropped: the collector failed a moment ago".into());
        }
        let sent = self.send(request).await;
        match &sent {
            Ok(_) if self.pauses().worked() => tracing::info!(url, "spans are exported again"),
            Err(error) if self.pauses().failed(Instant::now()) => {
                tracing::warn!(
                    url,
                    error = chain(error.as_ref()),
                    "cannot export spans: they are dropped until it works"
                );
            }
            _ => {}
        }
        sent
    }
}

/// An error with its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
