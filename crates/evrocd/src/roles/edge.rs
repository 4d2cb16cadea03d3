//! `edge`: the HTTPS gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use evroc_gateway::dial::DialClient;
use evroc_gateway::{Gateway, Settings};
use evroc_metrics::Registry;
use evroc_tunnel::{
    BoxBytes, BoxDuplex, HostLog, LogOptions, MachineAction, Refusal, TunnelConfig, TunnelHandler, TunnelKind,
    keep_connected,
};
use http::StatusCode;

use super::{RoleContext, api, tls};

/// Runs until SIGTERM.
pub async fn run(mut context: RoleContext) -> anyhow::Result<()> {
    let config = context.config.clone();
    let client = api::client(&config, &context.reloads)?;
    let settings = Settings {
        domain: config.domain.clone(),
        control: SocketAddr::from((Ipv4Addr::LOCALHOST, config.api_port)),
        control_names: &evroc_iam::leaf::FIXED_NAMES,
        metrics: Registry::process().clone(),
    };
    let dial = Arc::new(DialClient::new(&config.run_dir.join("dial.sock")));
    let gateway = Gateway::new(settings, tls::gateway(&config)?, client, dial);
    let (served, own) = (gateway.tls(), config.clone());
    context.reloads.keep(move || {
        served.replace(tls::gateway(&own)?);
        Ok(())
    })?;
    let own = config.clone();
    context.ready().await;
    let tunnel = TunnelConfig {
        api: config.api_url().parse()?,
        host: config.host_name.clone(),
        kind: TunnelKind::Edge,
        tls: context.reloads.keep(move || tls::client(&own))?,
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

    async fn act(&self, _: &str, _: MachineAction) -> Result<(), Refusal> {
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
