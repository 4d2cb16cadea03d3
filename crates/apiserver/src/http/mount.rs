//! Other HTTP services on the same listener: a registry, a console, an issuer. Their requests pass authentication, flow control and
//! audit like any other; what the caller may do is theirs to decide. They receive the [`crate::http::authn::Peer`], and the
//! [`crate::http::authn::Identity`] where the server knows the caller, as extensions of the request. A service with
//! credentials of its own brings the authenticator that knows them, so that flow control and audit know its callers as well.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use evroc_metrics::Text;
use futures::FutureExt;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

use crate::http::authn::Authenticate;
use crate::object::body::{BoxError, RequestBody, ResponseBody};

type Answering = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// A service for some host names and paths.
#[derive(Clone)]
pub struct Mount {
    host_prefix: String,
    path_prefix: String,
    has_own_challenge: bool,
    label: Text,
    authenticator: Option<Arc<dyn Authenticate>>,
    service: Arc<dyn Fn(Request<RequestBody>) -> Answering + Send + Sync>,
}

impl Mount {
    /// Mounts a service for requests whose `Host` begins with `host_prefix` (`registry.`; empty for any) and whose path is
    /// `path_prefix` or below it (`/v2`; `/` for any). The service may be an `axum::Router`.
    pub fn new<S, B>(host_prefix: &str, path_prefix: &str, service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let service = Arc::new(move |request: Request<RequestBody>| -> Answering {
            let answering = service.clone().oneshot(request);
            // A combinator and not an async block: the compiler cannot prove the block to be Send for any lifetime.
            Box::pin(answering.map(|answered| match answered {
                Ok(response) => response.map(|body| body.map_err(Into::into).boxed_unsync()),
                Err(never) => match never {},
            }))
        });
        Mount {
            host_prefix: host_prefix.to_ascii_lowercase(),
            path_prefix: path_prefix.into(),
            has_own_challenge: false,
            label: path_prefix.into(),
            authenticator: None,
            service,
        }
    }

    /// Lets requests through whose caller the server does not know: the service has credentials of its own, and a 401 of its own form.
    #[must_use]
    pub fn with_own_challenge(self) -> Self {
        Mount { has_own_challenge: true, ..self }
    }

    /// Sets the authenticator of this service's callers, in place of the server's own.
    #[must_use]
    pub fn authenticated_by(self, authenticator: Arc<dyn Authenticate>) -> Self {
        Mount { authenticator: Some(authenticator), ..self }
    }

    /// Returns the authenticator of this service's callers, if it is not the server's own.
    pub(crate) fn authenticator(&self) -> Option<&Arc<dyn Authenticate>> {
        self.authenticator.as_ref()
    }

    /// Whether the service challenges for credentials itself.
    pub(crate) fn has_own_challenge(&self) -> bool {
        self.has_own_challenge
    }

    /// The value of the label that its requests are counted under.
    pub(crate) fn label(&self) -> &Text {
        &self.label
    }

    /// Passes the request to the service.
    pub(crate) fn answer(&self, request: Request<RequestBody>) -> Answering {
        (self.service)(request)
    }

    /// Whether a request is for this service.
    pub(crate) fn takes<B>(&self, request: &Request<B>) -> bool {
        let host = request
            .uri()
            .host()
            .or_else(|| request.headers().get(http::header::HOST).and_then(|it| it.to_str().ok()))
            .unwrap_or_default();
        let path = request.uri().path();
        let prefix = self.path_prefix.trim_end_matches('/');
        host.to_ascii_lowercase().starts_with(&self.host_prefix)
            && path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}
