//! The other end of a connection and what its certificate says.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use x509_parser::prelude::{FromDer, Validity, X509Certificate};

use crate::object::identity::Identity;

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
    pub(super) subject: Arc<OnceLock<Result<Subject, String>>>,
}

impl Peer {
    /// The other end of a connection; what is not known is empty.
    pub fn new(address: Option<SocketAddr>, certificates: Arc<[Vec<u8>]>, server_name: Option<Arc<str>>) -> Self {
        Peer { address, certificates, server_name, subject: Arc::default() }
    }
}

/// Of whom a certificate speaks, and when.
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
