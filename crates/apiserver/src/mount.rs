//! Other HTTP services on the same listener: a registry, a console, an issuer. They see the [`crate::authn::Peer`] and
//! decide on access by themselves.

use std::convert::Infallible;

use http::{Request, Response};
use tower::util::BoxCloneSyncService;

use crate::body::{RequestBody, ResponseBody};

/// A service that takes over a part of the names and paths.
#[derive(Clone)]
pub struct Mount {
    /// Only requests whose `Host` begins with this (`registry.`); empty for any.
    pub host_prefix: String,
    /// Only paths that begin with this segment path (`/v2`); `/` for any.
    pub path_prefix: String,
    /// Who answers.
    pub service: BoxCloneSyncService<Request<RequestBody>, Response<ResponseBody>, Infallible>,
}

impl Mount {
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
