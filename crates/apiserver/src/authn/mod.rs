//! Who is asking. Nothing is anonymous but the health endpoints.

mod certificate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use certificate::CertificateAuthenticator;

/// An authenticated caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The name, for example `admin` or `system:node:host-1`.
    pub user: String,
    /// A stable id, if the authenticator knows one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups; `system:authenticated` is added by the server.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A caller in some groups.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Identity { user: user.into(), groups: groups.into_iter().map(Into::into).collect(), ..Identity::default() }
    }

    /// A controller that runs inside the server: `system:controller:<name>` in `system:controllers`.
    pub fn controller(name: &str) -> Self {
        Identity::new(format!("system:controller:{name}"), ["system:controllers"])
    }

    /// Whether the caller belongs to `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }
}

/// The other end of a connection: an extension of every request that comes over the network.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Where the connection comes from.
    pub address: Option<SocketAddr>,
    /// The certificate chain that TLS has verified, leaf first, as DER; empty without one.
    pub certificates: Arc<[Vec<u8>]>,
    /// The server name that the client asked for.
    pub server_name: Option<Arc<str>>,
    /// What the leaf says: it is read once, not for each request of the connection.
    subject: Arc<OnceLock<Result<certificate::Subject, String>>>,
}

impl Peer {
    /// The other end of a connection; what is not known is empty.
    pub fn new(address: Option<SocketAddr>, certificates: Arc<[Vec<u8>]>, server_name: Option<Arc<str>>) -> Self {
        Peer { address, certificates, server_name, subject: Arc::default() }
    }
}

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
