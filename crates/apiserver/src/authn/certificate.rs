//! Callers by client certificate: the common name is the user, organisations are the groups, as in Kubernetes.

use async_trait::async_trait;
use x509_parser::prelude::{FromDer, Validity, X509Certificate};

use super::{Authenticate, AuthnError, Identity, Peer};

/// Trusts every chain that the TLS layer has verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct CertificateAuthenticator;

/// Of whom a certificate speaks, and when.
#[derive(Debug)]
pub(super) struct Subject {
    identity: Identity,
    validity: Validity,
}

impl Subject {
    fn read(leaf: &[u8]) -> Result<Self, String> {
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|error| format!("client certificate cannot be read: {error}"))?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().filter_map(|it| it.as_str().ok()).next().unwrap_or_default();
        if user.is_empty() {
            return Err("client certificate has no common name".into());
        }
        let groups = subject.iter_organization().filter_map(|it| it.as_str().ok());
        Ok(Subject { identity: Identity::new(user, groups), validity: certificate.validity().clone() })
    }
}

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
