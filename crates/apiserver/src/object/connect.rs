//! Subresources that are streams or responses of other programs: consoles, logs, port forwards, tunnels.

use async_trait::async_trait;
use serde_json::Value;

use crate::object::body::{RequestBody, ResponseBody};
use crate::object::error::ApiError;
use crate::object::identity::Identity;

/// A request to a connect subresource, already authenticated and authorised (verb `get` for GET, `create` for POST).
pub struct ConnectRequest {
    /// The caller.
    pub identity: Identity,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object. If it does not exist, the request is refused with 404 before the handler runs.
    pub object: Value,
    /// The rest of the path after the subresource, without a leading slash.
    pub rest: String,
    /// The request itself, with its query, headers and body. Over the network it carries
    /// `hyper::upgrade::OnUpgrade`, so that the handler can answer 101 and take the connection over.
    pub request: http::Request<RequestBody>,
}

/// Serves one connect subresource of a kind.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Answers the request; the body may be a stream.
    ///
    /// # Errors
    /// The error to send to the client.
    async fn connect(&self, request: ConnectRequest) -> Result<http::Response<ResponseBody>, ApiError>;
}
