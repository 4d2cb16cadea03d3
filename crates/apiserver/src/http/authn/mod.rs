//! Authentication. Only the health endpoints are anonymous.

mod certificate;
mod peer;
mod revoked;

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

pub use crate::object::identity::Identity;
pub use certificate::CertificateAuthenticator;
pub(crate) use peer::Ending;
pub use peer::Peer;
pub(crate) use revoked::Revoked;

/// The error for invalid credentials; without credentials an authenticator returns `Ok(None)`.
#[derive(Debug, Error)]
#[error("credentials were refused: {reason}")]
pub struct AuthnError {
    /// For the audit log; the client only gets `Unauthorized`.
    pub reason: String,
}

/// Identifies callers.
#[async_trait]
pub trait Authenticate: Send + Sync {
    /// Returns the caller, from the connection's verified certificate and the request's headers (`Authorization: Bearer …`).
    ///
    /// # Errors
    /// If the credentials are invalid.
    async fn authenticate(&self, peer: &Peer, headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError>;
}

/// Asks several authenticators in turn; the first that knows the caller wins.
#[derive(Clone, Default)]
pub struct AuthenticatorChain(pub Vec<Arc<dyn Authenticate>>);

#[async_trait]
impl Authenticate for AuthenticatorChain {
    async fn authenticate(&self, peer: &Peer, headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        let mut refused = None;
        for authenticator in &self.0 {
            match authenticator.authenticate(peer, headers).await {
                Ok(Some(identity)) => return Ok(Some(identity)),
                Ok(None) => {}
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}

/// Returns the token of an `Authorization: Bearer` header.
pub fn bearer_token(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
