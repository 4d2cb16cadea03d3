//! Subresources of the API through which users reach hosts: consoles and ports of virtual machines, actions on them, logs.
//!
//! | subresource | request | answer |
//! |---|---|---|
//! | `virtualmachines/console` | WebSocket | the serial console; its last output first |
//! | `virtualmachines/portforward?port=N` | WebSocket | a TCP connection to a port of the guest |
//! | `virtualmachines/log?tailBytes=N&previous=true` | GET | the end of the guest's output on its serial console, of its previous run with `previous` |
//! | `virtualmachines/stop?gracePeriodSeconds=0`, `/restart?gracePeriodSeconds=0`, `/pause`, `/resume`, `/reset` | POST | a `Status`, when it is under way or done |
//! | `services/log?follow=true&tailLines=N&sinceTime=T&timestamps=true` | GET | the containers' output; when followed, until the service is deleted |
//! | `hosts/tunnel` | `Upgrade: evroc-tunnel` | how a host lets control reach it ([`evroc_tunnel`]) |
//! | `hosts/edgetunnel` | `Upgrade: evroc-tunnel` | the same for the gateway on the host |
//!
//! Everything but the last two goes on through the tunnels of the hosts that the object's Machine or replicas are on. A stream holds one
//! of its caller's places ([`places`]), and ends with the credential that it was opened with, which the API server enforces.

mod actions;
mod lines;
mod machine;
mod places;
mod query;
mod service_log;
mod websocket;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use evroc_apiserver::body::{self, ResponseBody};
use evroc_apiserver::{ApiError, Builder, Connect, ConnectRequest};
use evroc_iam::identity::{USER_EDGE, USER_NODE_PREFIX};
use evroc_tunnel::{TunnelError, TunnelKind, Tunnels};
use http::{Response, StatusCode, header};
use tokio_util::sync::CancellationToken;

use actions::{Action, MachineActions};
use machine::{MachineStream, What};
use places::Places;
use service_log::ServiceLog;

use crate::metrics::MetricsOfHosts;

const VIRTUAL_MACHINES: &str = "virtualmachines.compute.evroclabs.net";

/// The state shared by all stream handlers. Cheap to clone.
#[derive(Clone)]
pub struct Streams(Arc<Shared>);

struct Shared {
    tunnels: Tunnels,
    /// The tunnels of gateways.
    edges: Tunnels,
    places: Arc<Places>,
    /// Known only when the API server runs, which the handlers are a part of.
    client: OnceLock<kube::Client>,
    stop: CancellationToken,
}

impl Streams {
    /// Handlers that answer once [`Self::begin`] was called; open streams end in good order when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        let (tunnels, edges, places) = (Tunnels::default(), Tunnels::default(), Arc::default());
        Self(Arc::new(Shared { tunnels, edges, places, client: OnceLock::new(), stop }))
    }

    /// Registers the subresources with the API server.
    pub fn register(&self, builder: Builder) -> Builder {
        let of_machine = |what| Arc::new(MachineStream { streams: self.clone(), what });
        let act = |action| Arc::new(MachineActions { streams: self.clone(), action });
        let entrance = |kind| Arc::new(Entrance { streams: self.clone(), kind });
        let hosts = "hosts.infra.evroclabs.net";
        let others = MetricsOfHosts { nodes: self.0.tunnels.clone(), edges: self.0.edges.clone() };
        builder
            .metrics_of_others(Arc::new(others))
            .connect(hosts, TunnelKind::Node.subresource(), entrance(TunnelKind::Node))
            .connect(hosts, TunnelKind::Edge.subresource(), entrance(TunnelKind::Edge))
            .connect(VIRTUAL_MACHINES, "console", of_machine(What::Console))
            .connect(VIRTUAL_MACHINES, "portforward", of_machine(What::Port))
            .connect(VIRTUAL_MACHINES, "log", of_machine(What::Log))
            .connect(VIRTUAL_MACHINES, "stop", act(Action::Stop))
            .connect(VIRTUAL_MACHINES, "restart", act(Action::Restart))
            .connect(VIRTUAL_MACHINES, "pause", act(Action::Pause))
            .connect(VIRTUAL_MACHINES, "resume", act(Action::Resume))
            .connect(VIRTUAL_MACHINES, "reset", act(Action::Reset))
            .connect("services.run.evroclabs.net", "log", Arc::new(ServiceLog(self.clone())))
    }

    /// Gives the handlers the API to look machines and hosts up in.
    pub fn begin(&self, client: kube::Client) {
        // Called once; a second client would be as good as the first.
        let _ = self.0.client.set(client);
    }

    /// The tunnels of the hosts: hosts in the same process connect here, others at `hosts/tunnel`.
    pub fn tunnels(&self) -> &Tunnels {
        &self.0.tunnels
    }

    fn client(&self) -> Result<kube::Client, ApiError> {
        self.0.client.get().cloned().ok_or_else(|| ApiError::unavailable("the cloud is starting: try again"))
    }
}

fn refusal(status: StatusCode, message: String) -> ApiError {
    let reason = match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::GATEWAY_TIMEOUT => "Timeout",
        StatusCode::BAD_GATEWAY => "BadGateway",
        _ => "InternalError",
    };
    ApiError::new(status, reason, message)
}

/// Turns an error of a host or of the connection to it into a message with the name that the user knows.
fn failed(what: &str, error: &TunnelError) -> ApiError {
    refusal(error.status(), format!("{what}: {}", evroc_controller::chain(error)))
}

/// An answer that is text.
fn text(
    pieces: impl futures::Stream<Item = Result<bytes::Bytes, body::BoxError>> + Send + 'static,
) -> Response<ResponseBody> {
    let mut response = Response::new(body::stream(pieces));
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The entrance for tunnels of hosts.
struct Entrance {
    streams: Streams,
    kind: TunnelKind,
}

#[async_trait]
impl Connect for Entrance {
    async fn connect(&self, stream_request: ConnectRequest) -> Result<Response<ResponseBody>, ApiError> {
        // Operators may do everything but pretend to be a host: streams would end at them.
        let shared = &self.streams.0;
        let (owner, role, tunnels) = match self.kind {
            TunnelKind::Node => (format!("{USER_NODE_PREFIX}{}", stream_request.name), "node", &shared.tunnels),
            TunnelKind::Edge => (USER_EDGE.to_owned(), "gateway", &shared.edges),
        };
        if stream_request.identity.user != owner {
            let message = format!("only the {role} of host \"{}\" can open its tunnel", stream_request.name);
            return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message));
        }
        let response = tunnels.accept(&stream_request.name, stream_request.request);
        Ok(response.map(|_| body::empty()))
    }
}
