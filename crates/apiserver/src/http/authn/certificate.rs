//! Callers by client certificate. Certificates are parsed by the component that issues them: there is one parser.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::peer::Peer;
use super::{Authenticate, AuthnError};
use crate::object::identity::Identity;

type Reader = dyn Fn(&[u8]) -> Result<Identity, String> + Send + Sync;

/// Trusts every chain that the TLS layer has verified.
#[derive(Clone)]
pub struct CertificateAuthenticator {
    reader: Arc<Reader>,
}

impl CertificateAuthenticator {
    /// `reader` returns the identity of a verified leaf certificate (DER), and its end; or the reason why it has none.
    pub fn new(reader: impl Fn(&[u8]) -> Result<Identity, String> + Send + Sync + 'static) -> Self {
        CertificateAuthenticator { reader: Arc::new(reader) }
    }
}

#[async_trait]
impl Authenticate for CertificateAuthenticator {
    async fn authenticate(&self, peer: &Peer, _headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        let Some(leaf) = peer.certificates.first() else { return Ok(None) };
        let refuse = |reason: &str| AuthnError { reason: reason.to_owned() };
        let subject = peer.subject.get_or_init(|| (self.reader)(leaf)).as_ref().map_err(|why| refuse(why))?;
        // A connection may outlive its certificate.
        if subject.expires.is_some_and(|end| end <= Timestamp::now()) {
            return Err(refuse("the client certificate has expired"));
        }
        Ok(Some(subject.clone()))
    }
}
