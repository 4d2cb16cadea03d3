//! The metrics of the processes on hosts, below `/metrics` of the API: `/metrics/node/<host>` and `/metrics/edge/<host>`.
//!
//! They come through the tunnels that those processes keep open anyway, so that a monitoring system needs one address and one credential. A
//! process that is away is a 503 for its own path and delays no other.

use async_trait::async_trait;
use bytes::Bytes;
use evroc_apiserver::ApiError;
use evroc_apiserver::metrics::MetricsOfOthers;
use evroc_tunnel::{TunnelError, Tunnels};
use http::StatusCode;

/// The metrics that come through tunnels.
pub(crate) struct MetricsOfHosts {
    /// Tunnels of host agents, by host.
    pub nodes: Tunnels,
    /// Tunnels of gateways, by host.
    pub edges: Tunnels,
}

#[async_trait]
impl MetricsOfOthers for MetricsOfHosts {
    async fn text(&self, path: &[String]) -> Result<Bytes, ApiError> {
        let [role, host] = path else { return Err(ApiError::no_such_path()) };
        let tunnels = match role.as_str() {
            "node" => &self.nodes,
            "edge" => &self.edges,
            _ => return Err(ApiError::no_such_path()),
        };
        tunnels.metrics(host).await.map_err(|error| unavailable(role, host, &error))
    }
}

/// To a monitoring system, every process that does not answer is down.
fn unavailable(role: &str, host: &str, error: &TunnelError) -> ApiError {
    let why = match error {
        TunnelError::NotConnected { .. } => "it is not connected: is it running?".to_owned(),
        error => evroc_controller::chain(error),
    };
    let message = format!("no metrics of role {role} on host {host:?}: {why}");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_role_that_is_away_is_named_and_other_paths_are_unknown() {
        let all = MetricsOfHosts { nodes: Tunnels::default(), edges: Tunnels::default() };
        let ask = async |path: &[&str]| {
            let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
            let error = all.text(&path).await.expect_err("nobody is connected");
            (error.code.as_u16(), error.message.clone())
        };
        let (code, message) = ask(&["edge", "h1"]).await;
        assert_eq!(code, 503);
        assert_eq!(message, "no metrics of role edge on host \"h1\": it is not connected: is it running?");
        assert_eq!(ask(&["node", "h1"]).await.0, 503);
        for path in [&["node"][..], &["node", "h1", "x"], &["other", "h1"]] {
            assert_eq!(ask(path).await.0, 404, "{path:?}");
        }
    }
}
