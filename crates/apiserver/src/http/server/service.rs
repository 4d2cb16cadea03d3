//! The server as tower services.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower::Service;

use super::handler;
use super::shared::Shared;
use crate::object::body::{BoxError, RequestBody, ResponseBody};
use crate::object::identity::Identity;

/// The API for one caller in this process.
#[derive(Clone)]
pub struct IdentityService {
    shared: Arc<Shared>,
    identity: Identity,
}

impl IdentityService {
    pub(super) fn new(shared: Arc<Shared>, identity: Identity) -> Self {
        IdentityService { shared, identity }
    }
}

/// The API for callers that authenticate with each request.
#[derive(Clone)]
pub struct NetworkService {
    shared: Arc<Shared>,
}

impl NetworkService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        NetworkService { shared }
    }
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

fn boxed<B>(request: Request<B>) -> Request<RequestBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    request.map(|body| body.map_err(Into::into).boxed_unsync())
}

impl<B> Service<Request<B>> for IdentityService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (shared, identity, request) = (self.shared.clone(), self.identity.clone(), boxed(request));
        Box::pin(async move { Ok(handler::handle(&shared, Some(identity), request).await) })
    }
}

impl<B> Service<Request<B>> for NetworkService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (shared, request) = (self.shared.clone(), boxed(request));
        Box::pin(async move { Ok(handler::handle(&shared, None, request).await) })
    }
}
