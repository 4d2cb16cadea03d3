//! One write of the controllers that goes wrong.
//!
//! Writes are counted in the order in which they arrive, over all controllers. The fault strikes once: a controller that repeats the
//! write, or starts again, gets on. A story that is run with every write failing once shows that no step needs to be the first
//! try or the only one.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use evroc_apiserver::body::{ResponseBody, full};
use evroc_apiserver::server::IdentityService;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;
use tokio::sync::Notify;
use tower::{BoxError, Service};

/// How a write goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is refused and has no effect.
    Refused,
    /// Another writer was faster: a conflict, no effect.
    Conflict,
    /// It has its effect, and the answer is an error.
    AnswerLost,
    /// The controllers are killed before it has an effect.
    KilledBefore,
    /// The controllers are killed after it had its effect and before they know.
    KilledAfter,
}

impl Manner {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Refused, Self::Conflict, Self::AnswerLost, Self::KilledBefore, Self::KilledAfter];
}

/// The write that goes wrong, and the manner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of the write, from 0.
    pub at: usize,
    /// How.
    pub manner: Manner,
}

/// Counts the writes of all controllers and lets the chosen one go wrong. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Shared>);

#[derive(Default)]
struct Shared {
    fault: Option<Fault>,
    writes: Mutex<Vec<String>>,
    killed: Notify,
}

impl Faults {
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self(Arc::new(Shared { fault, ..Shared::default() }))
    }

    /// The writes so far: method and path.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.0.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends when the controllers are to be killed.
    pub(crate) async fn killed(&self) {
        self.0.killed.notified().await;
    }

    fn strikes(&self, request: &Request<Body>) -> Option<Manner> {
        // Events are written once and may be lost.
        if matches!(*request.method(), Method::GET | Method::HEAD) || request.uri().path().ends_with("/events") {
            return None;
        }
        let mut writes = self.0.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.push(format!("{} {}", request.method(), request.uri().path()));
        self.0.fault.filter(|fault| fault.at + 1 == writes.len()).map(|fault| fault.manner)
    }

    async fn die(&self) -> Response<ResponseBody> {
        self.0.killed.notify_one();
        std::future::pending().await
    }
}

/// The API as a controller sees it that has bad luck.
#[derive(Clone)]
pub(crate) struct Faulty {
    pub(crate) inner: IdentityService,
    pub(crate) faults: Faults,
}

impl Service<Request<Body>> for Faulty {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let manner = self.faults.strikes(&request);
        let (mut inner, faults) = (self.inner.clone(), self.faults.clone());
        Box::pin(async move {
            match manner {
                Some(Manner::Refused) => return Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
                Some(Manner::Conflict) => return Ok(failure(StatusCode::CONFLICT, "Conflict")),
                Some(Manner::KilledBefore) => return Ok(faults.die().await),
                Some(Manner::AnswerLost | Manner::KilledAfter) | None => {}
            }
            let response = inner.call(request).await?;
            match manner {
                Some(Manner::AnswerLost) => Ok(failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
                Some(Manner::KilledAfter) => Ok(faults.die().await),
                _ => Ok(response),
            }
        })
    }
}

fn failure(code: StatusCode, reason: &str) -> Response<ResponseBody> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": "planted by a test"});
    let mut response = Response::new(full(status.to_string()));
    *response.status_mut() = code;
    response
}
