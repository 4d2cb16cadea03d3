//! The API as edge and node see it: over mTLS on loopback, with the role's own certificate as it is now.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use anyhow::Context;
use http::{Request, Response};
use kube::client::{Body, ClientBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;

use super::RoleConfig;
use super::tls::Reloads;
use crate::traces::propagation;

/// A client with the role's identity; requests that begin after the certificate was replaced use the new one.
pub fn client(config: &Arc<RoleConfig>, reloads: &Reloads) -> anyhow::Result<kube::Client> {
    let own = config.clone();
    Ok(kube::Client::new(Current(reloads.keep(move || connect(&own))?), "default"))
}

/// A client with the certificate of this moment. Each has connections of its own: one that the server knows by the former certificate
/// is used for what runs on it, and not for anything else.
fn connect(config: &RoleConfig) -> anyhow::Result<kube::Client> {
    let read = |path: &Option<std::path::PathBuf>| {
        let path = path.as_ref().context("no client certificate in the settings")?;
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let authorities = CertificateDer::pem_file_iter(&config.ca_certificate)
        .and_then(|all| all.map(|one| one.map(|der| der.to_vec())).collect::<Result<Vec<_>, _>>());
    let mut settings = kube::Config::new(config.api_url().parse()?);
    settings.root_cert = Some(authorities.context("cannot read the authority's certificate")?);
    settings.auth_info.client_certificate_data = Some(encode(&read(&config.client_certificate)?));
    settings.auth_info.client_key_data = Some(encode(&read(&config.client_key)?).into());
    let client = ClientBuilder::try_from(settings).context("cannot prepare the connection to the API")?;
    Ok(client.with_layer(&propagation::layer()).build())
}

/// Sends each request with the client of its moment.
struct Current(watch::Receiver<kube::Client>);

impl tower::Service<Request<Body>> for Current {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = self.0.borrow().clone();
        Box::pin(async move { client.send(request).await })
    }
}

/// As kubeconfigs have it.
fn encode(pem: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(pem)
}
