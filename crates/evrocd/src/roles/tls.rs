//! The certificates of a role and the authorities that it trusts, as the files have them now.
//!
//! The supervisor replaces the files while the role runs and then sends [`Command::LoadCertificates`](super::Command). What the role opens
//! or accepts from then on uses the new ones; connections that are open go on. Whole settings of TLS are replaced and not only the
//! certificate, because a session of TLS that is resumed has the identity, and the trust, of the one that it resumes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;

use super::RoleConfig;

type Load = Box<dyn Fn() -> anyhow::Result<()> + Send>;

/// The readers that a role runs again when its certificates were replaced.
#[derive(Default)]
pub struct Reloads(Mutex<Vec<Load>>);

impl Reloads {
    /// Reads everything again. What cannot be read stays as it was.
    ///
    /// # Errors
    /// The first failure; the others are carried out all the same.
    pub fn load(&self) -> anyhow::Result<()> {
        let loads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loads.iter().map(|load| load()).fold(Ok(()), anyhow::Result::and)
    }

    /// Reads a value now, and again at every [`Reloads::load`]. None is missed in between: the two exclude each other.
    ///
    /// # Errors
    /// If it cannot be read now.
    pub fn keep<T: Send + Sync + 'static>(
        &self,
        read: impl Fn() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<watch::Receiver<T>> {
        let mut loads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sender, receiver) = watch::channel(read()?);
        loads.push(Box::new(move || {
            sender.send_replace(read()?);
            Ok(())
        }));
        Ok(receiver)
    }
}

/// The authorities that the instance trusts: one, and a second while one takes the place of the other.
pub fn roots(config: &RoleConfig) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(Some(&config.ca_certificate), "the authority's certificate")? {
        roots.add(certificate)?;
    }
    anyhow::ensure!(!roots.is_empty(), "{} has no certificate", config.ca_certificate.display());
    Ok(roots)
}

/// TLS with the role's identity as a client.
pub fn client(config: &RoleConfig) -> anyhow::Result<Arc<ClientConfig>> {
    let (chain, key) = (
        chain(config.client_certificate.as_deref(), "the client certificate")?,
        key(config.client_key.as_deref(), "the client key")?,
    );
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots(config)?).with_client_auth_cert(chain, key)?))
}

/// TLS of the gateway, whose clients need no certificate.
pub fn gateway(config: &RoleConfig) -> anyhow::Result<ServerConfig> {
    let (chain, key) = server(config)?;
    Ok(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?)
}

/// TLS of the API, whose clients may have a certificate.
pub fn api(config: &RoleConfig) -> anyhow::Result<Arc<ServerConfig>> {
    let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots(config)?));
    let clients = clients.allow_unauthenticated().build()?;
    let (chain, key) = server(config)?;
    let mut tls = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

fn server(config: &RoleConfig) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    Ok((
        chain(config.server_certificate.as_deref(), "the server's certificate")?,
        key(config.server_key.as_deref(), "the server's key")?,
    ))
}

fn chain(path: Option<&Path>, what: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let path = path.with_context(|| format!("{what} is not in the settings"))?;
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("cannot read {what} in {}", path.display()))
}

fn key(path: Option<&Path>, what: &str) -> anyhow::Result<PrivateKeyDer<'static>> {
    let path = path.with_context(|| format!("{what} is not in the settings"))?;
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("cannot read {what} in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_again_stays_and_is_named_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        std::fs::write(&one, "1").unwrap();
        std::fs::write(&other, "1").unwrap();
        let reloads = Reloads::default();
        let keep = |path: &Path| {
            let path = path.to_owned();
            reloads.keep(move || std::fs::read_to_string(&path).context("cannot read it")).unwrap()
        };
        let (first, second) = (keep(&one), keep(&other));
        std::fs::remove_file(&one).unwrap();
        std::fs::write(&other, "2").unwrap();
        assert_eq!(reloads.load().unwrap_err().to_string(), "cannot read it");
        assert_eq!((first.borrow().as_str(), second.borrow().as_str()), ("1", "2"));
        std::fs::write(&one, "3").unwrap();
        reloads.load().unwrap();
        assert_eq!((first.borrow().as_str(), second.borrow().as_str()), ("3", "2"));
    }
}
