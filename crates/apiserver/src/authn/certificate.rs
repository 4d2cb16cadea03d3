//! Callers by client certificate: the common name is the user, organisations are the groups, as in Kubernetes.

use async_trait::async_trait;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticate, AuthnError, Identity, Peer};

/// Trusts every chain that the TLS layer has verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateAuthenticator;

#[async_trait]
impl Authenticate for CertificateAuthenticator {
    async fn authenticate(&self, peer: &Peer, _headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        let Some(leaf) = peer.certificates.first() else { return Ok(None) };
        let refuse = |reason: String| AuthnError { reason };
        let (_, certificate) = X509Certificate::from_der(leaf)
            .map_err(|error| refuse(format!("client certificate cannot be read: {error}")))?;
        if !certificate.validity().is_valid() {
            return Err(refuse("client certificate has expired or is not valid yet".into()));
        }
        let subject = certificate.subject();
        let user = subject.iter_common_name().filter_map(|it| it.as_str().ok()).next().unwrap_or_default();
        if user.is_empty() {
            return Err(refuse("client certificate has no common name".into()));
        }
        let groups = subject.iter_organization().filter_map(|it| it.as_str().ok());
        Ok(Some(Identity::new(user, groups)))
    }
}
