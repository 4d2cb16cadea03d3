//! One life of a host's agents: what they have set off ends with it.
//!
//! Agents start tasks that outlive the future that started them. In a process they die with it; here they are cut off from the API.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use evroc_apiserver::body::ResponseBody;
use evroc_apiserver::server::IdentityService;
use http::{Request, Response};
use kube::client::Body;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

/// The API, until `end`: then nothing is answered any more.
#[derive(Clone)]
pub(super) struct Mortal {
    pub inner: IdentityService,
    pub end: CancellationToken,
}

impl Service<Request<Body>> for Mortal {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut inner, end) = (self.inner.clone(), self.end.clone());
        Box::pin(async move {
            if end.is_cancelled() {
                return std::future::pending().await;
            }
            tokio::select! {
                biased;
                () = end.cancelled() => std::future::pending().await,
                response = inner.call(request) => Ok(response?),
            }
        })
    }
}
