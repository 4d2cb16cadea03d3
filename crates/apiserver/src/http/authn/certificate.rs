//! Callers by client certificate: the common name is the user, organisations are the groups, as in Kubernetes.

use async_trait::async_trait;

use super::peer::{Peer, Subject};
use super::{Authenticate, AuthnError};
use crate::object::identity::Identity;

/// Trusts every chain that the TLS layer has verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateAuthenticator;

#[async_trait]
impl Authenticate for CertificateAuthenticator {
    async fn authenticate(&self, peer: &Peer, _headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        let Some(leaf) = peer.certificates.first() else { return Ok(None) };
        let refuse = |reason: &str| AuthnError { reason: reason.to_owned() };
        let subject = peer.subject.get_or_init(|| Subject::read(leaf)).as_ref().map_err(|why| refuse(why))?;
        // A connection may outlive its certificate.
        if !subject.validity.is_valid() {
            return Err(refuse("client certificate has expired or is not valid yet"));
        }
        Ok(Some(subject.identity.clone()))
    }
}
