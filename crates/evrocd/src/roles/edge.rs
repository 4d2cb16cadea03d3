//! `edge`: the HTTPS gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use evroc_gateway::dial::DialClient;
use evroc_gateway::{Gateway, Settings};
use evroc_metrics::Registry;
use evroc_tunnel::{
    BoxBytes, BoxDuplex, HostLog, LogOptions, Refusal, TunnelConfig, TunnelHandler, TunnelKind, keep_connected,
};
use http::StatusCode;
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
        metrics: Registry::process().clone(),
    };
    let dial = Arc::new(DialClient::new(&config.run_dir.join("dial.sock")));
    let gateway = Gateway::new(settings, tls(&config)?, client, dial);
    context.ready().await;
    let tunnel = TunnelConfig {
        api: config.api_url().parse()?,
        host: config.host_name.clone(),
        kind: TunnelKind::Edge,
        tls: Arc::new(api::tls(&config)?),
    };
    let tunnel = tokio::spawn(keep_connected(tunnel, Arc::new(MetricsOnly)));
    let listeners = std::mem::take(&mut context.https_listeners);
    gateway.run(listeners, context.stop.clone()).await;
    tunnel.abort();
    Ok(())
}

/// The requests that control may make to a gateway.
struct MetricsOnly;

impl MetricsOnly {
    fn refuse<T>() -> Result<T, Refusal> {
        Err(Refusal::new(StatusCode::NOT_FOUND, "a gateway has no guests and no containers"))
    }
}

#[async_trait]
impl TunnelHandler for MetricsOnly {
    async fn dial_machine(&self, _: &str, _: u16) -> Result<BoxDuplex, Refusal> {
        Self::refuse()
    }

    async fn console(&self, _: &str) -> Result<BoxDuplex, Refusal> {
        Self::refuse()
    }

    async fn service_log(&self, _: &str, _: &str, _: LogOptions) -> Result<HostLog, Refusal> {
        Self::refuse()
    }

    async fn serial_log(&self, _: &str, _: u64) -> Result<BoxBytes, Refusal> {
        Self::refuse()
    }

    async fn previous_serial_log(&self, _: &str, _: u64) -> Result<BoxBytes, Refusal> {
        Self::refuse()
    }

    async fn metrics(&self) -> Result<Bytes, Refusal> {
        Ok(Registry::process().text().into())
    }
}

fn tls(config: &RoleConfig) -> anyhow::Result<rustls::ServerConfig> {
    let certificate = config.server_certificate.as_ref().context("no server certificate in the settings")?;
    let key = config.server_key.as_ref().context("no server key in the settings")?;
    let chain = CertificateDer::pem_file_iter(certificate).context("cannot read the gateway's certificate")?;
    let chain = chain.collect::<Result<Vec<_>, _>>().context("cannot read the gateway's certificate")?;
    let key = PrivateKeyDer::from_pem_file(key).context("cannot read the gateway's key")?;
    Ok(rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?)
}
