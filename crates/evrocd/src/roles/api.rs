//! The API as edge and node see it: over mTLS on loopback, with the role's own certificate.

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::RoleConfig;

/// A client with the role's identity.
pub fn client(config: &RoleConfig) -> anyhow::Result<kube::Client> {
    let read = |path: &Option<std::path::PathBuf>| {
        let path = path.as_ref().context("no client certificate in the settings")?;
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let authority =
        CertificateDer::from_pem_file(&config.ca_certificate).context("cannot read the authority's certificate")?;
    let mut settings = kube::Config::new(config.api_url().parse()?);
    settings.root_cert = Some(vec![authority.to_vec()]);
    settings.auth_info.client_certificate_data = Some(encode(&read(&config.client_certificate)?));
    settings.auth_info.client_key_data = Some(encode(&read(&config.client_key)?).into());
    kube::Client::try_from(settings).context("cannot prepare the connection to the API")
}

/// TLS with the role's identity, for connections that are not the API client's.
pub fn tls(config: &RoleConfig) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(
        CertificateDer::from_pem_file(&config.ca_certificate).context("cannot read the authority's certificate")?,
    )?;
    let certificate = config.client_certificate.as_ref().context("no client certificate in the settings")?;
    let key = config.client_key.as_ref().context("no client key in the settings")?;
    let chain = CertificateDer::pem_file_iter(certificate).context("cannot read the client certificate")?;
    let chain = chain.collect::<Result<Vec<_>, _>>().context("cannot read the client certificate")?;
    let key = PrivateKeyDer::from_pem_file(key).context("cannot read the client key")?;
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

/// As kubeconfigs have it.
fn encode(pem: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(pem)
}
