//! The server as tower services.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower::Service;

use super::{ApiServer, handler};
use crate::authn::Identity;
use crate::body::{BoxError, RequestBody, ResponseBody};

/// The API as seen by one caller in this process.
#[derive(Clone)]
pub struct IdentityService {
    server: ApiServer,
    identity: Identity,
}

impl IdentityService {
    pub(super) fn new(server: ApiServer, identity: Identity) -> Self {
        IdentityService { server, identity }
    }
}

/// The API for callers who authenticate themselves.
#[derive(Clone)]
pub struct NetworkService {
    server: ApiServer,
}

impl NetworkService {
    pub(super) fn new(server: ApiServer) -> Self {
        NetworkService { server }
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
        let (server, identity, request) = (self.server.clone(), self.identity.clone(), boxed(request));
        Box::pin(async move { Ok(handler::handle(&server, Some(identity), request).await) })
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
        let (server, request) = (self.server.clone(), boxed(request));
        Box::pin(async move { Ok(handler::handle(&server, None, request).await) })
    }
}
