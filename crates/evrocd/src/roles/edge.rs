//! `edge`: the HTTPS gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use evroc_gateway::dial::DialClient;
use evroc_gateway::{Gateway, Settings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{RoleConfig, RoleContext, api};

/// Runs until SIGTERM.
pub async fn run(mut context: RoleContext) -> anyhow::Result<()> {
    let config = context.config.clone();
    let client = api::client(&config)?;
    let settings = Settings {
        domain: config.domain.clone(),
        control: SocketAddr::from((Ipv4Addr::LOCALHOST, config.api_port)),
        control_names: &evroc_iam::leaf::FIXED_NAMES,
        metrics: evroc_metrics::Registry::process().clone(),
    };
    let dial = Arc::new(DialClient::new(&config.run_dir.join("dial.sock")));
    let gateway = Gateway::new(settings, tls(&config)?, client, dial);
    context.ready().await;
    let listeners = std::mem::take(&mut context.https_listeners);
    gateway.run(listeners, context.stop.clone()).await;
    Ok(())
}

fn tls(config: &RoleConfig) -> anyhow::Result<rustls::ServerConfig> {
    let certificate = config.server_certificate.as_ref().context("no server certificate in the settings")?;
    let key = config.server_key.as_ref().context("no server key in the settings")?;
    let chain = CertificateDer::pem_file_iter(certificate).context("cannot read the gateway's certificate")?;
    let chain = chain.collect::<Result<Vec<_>, _>>().context("cannot read the gateway's certificate")?;
    let key = PrivateKeyDer::from_pem_file(key).context("cannot read the gateway's key")?;
    Ok(rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?)
}
