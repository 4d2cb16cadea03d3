//! The remote end of a connection, and the subject of its certificate.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use x509_parser::prelude::{FromDer, Validity, X509Certificate};

use crate::object::identity::Identity;

/// The remote end of a connection: an extension of every request from the network.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The remote address.
    pub address: Option<SocketAddr>,
    /// The certificate chain that TLS has verified, leaf first, as DER; empty without one.
    pub certificates: Arc<[Vec<u8>]>,
    /// The server name that the client asked for.
    pub server_name: Option<Arc<str>>,
    /// The subject of the leaf, which is parsed once per connection.
    pub(super) subject: Arc<OnceLock<Result<Subject, String>>>,
}

impl Peer {
    /// Returns a peer; unknown values are empty.
    pub fn new(address: Option<SocketAddr>, certificates: Arc<[Vec<u8>]>, server_name: Option<Arc<str>>) -> Self {
        Peer { address, certificates, server_name, subject: Arc::default() }
    }
}

/// The subject of a client certificate and its validity period.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) identity: Identity,
    pub(super) validity: Validity,
}

impl Subject {
    pub(super) fn read(leaf: &[u8]) -> Result<Self, String> {
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
