//! Who is asking. Nothing is anonymous but the health endpoints.

mod certificate;
mod peer;

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;

pub use crate::object::identity::Identity;
pub use certificate::CertificateAuthenticator;
pub use peer::Peer;

/// Credentials that were given and are wrong; without credentials an authenticator answers `Ok(None)`.
#[derive(Debug, Error)]
#[error("credentials were refused: {reason}")]
pub struct AuthnError {
    /// For the audit log; the client is told no more than `Unauthorized`.
    pub reason: String,
}

/// Finds out who asks.
#[async_trait]
pub trait Authenticate: Send + Sync {
    /// The caller, from the connection's verified certificate and the request's headers (`Authorization: Bearer …`).
    ///
    /// # Errors
    /// If credentials were given that are wrong.
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

/// The token of an `Authorization: Bearer` header.
pub fn bearer_token(headers: &http::HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
