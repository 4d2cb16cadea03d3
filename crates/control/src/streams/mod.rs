//! Streams that users open as subresources of the API: consoles and ports of virtual machines, logs.
//!
//! | subresource | request | answer |
//! |---|---|---|
//! | `virtualmachines/console` | WebSocket | the serial console; its last output first |
//! | `virtualmachines/portforward?port=N` | WebSocket | a TCP connection to a port of the guest |
//! | `virtualmachines/log?tailBytes=N` | GET | the end of the guest's output on its serial console |
//! | `services/log?follow=true&tailLines=N&sinceTime=T&timestamps=true` | GET | the containers' output; when followed, until the service is deleted |
//! | `hosts/tunnel` | `Upgrade: evroc-tunnel` | how a host lets control reach it ([`evroc_tunnel`]) |
//!
//! Everything but the last goes on through the tunnel of the host that the object's Machine or replicas are on.

mod websocket;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use evroc_api::compute::VirtualMachine;
use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Host, Machine, MachinePhase};
use evroc_apiserver::body::{self, ResponseBody};
use evroc_apiserver::{ApiError, Builder, Connect, ConnectRequest};
use evroc_tunnel::{LogOptions, TunnelError, Tunnels};
use futures::{StreamExt, TryStreamExt};
use http::{Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// The default of `tailBytes` for a virtual machine's `log`.
const TAIL_BYTES: u64 = 64 << 10;

/// The state shared by all stream handlers. Cheap to clone.
#[derive(Clone)]
pub struct Streams(Arc<Shared>);

struct Shared {
    tunnels: Tunnels,
    /// Known only when the API server runs, which the handlers are a part of.
    client: OnceLock<kube::Client>,
    stop: CancellationToken,
}

impl Streams {
    /// Handlers that answer once [`Self::begin`] was called; open streams end in good order when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { tunnels: Tunnels::default(), client: OnceLock::new(), stop }))
    }

    /// Registers the subresources with the API server.
    pub fn register(&self, builder: Builder) -> Builder {
        let of_machine = |what| Arc::new(MachineStream { streams: self.clone(), what });
        builder
            .connect("hosts.infra.evroclabs.net", "tunnel", Arc::new(Entrance(self.clone())))
            .connect("virtualmachines.compute.evroclabs.net", "console", of_machine(What::Console))
            .connect("virtualmachines.compute.evroclabs.net", "portforward", of_machine(What::Port))
            .connect("virtualmachines.compute.evroclabs.net", "log", of_machine(What::Log))
            .connect("services.run.evroclabs.net", "log", Arc::new(ServiceLog(self.clone())))
    }

    /// Gives the handlers the API to look machines and hosts up in.
    pub fn begin(&self, client: kube::Client) {
        // Called once; a second client would be as good as the first.
        let _ = self.0.client.set(client);
    }

    fn client(&self) -> Result<kube::Client, ApiError> {
        self.0.client.get().cloned().ok_or_else(|| ApiError::unavailable("the cloud is starting: try again"))
    }

    /// The host and the uid of what runs a virtual machine.
    async fn machine(&self, namespace: &str, vm: &VirtualMachine) -> Result<Machine, ApiError> {
        let machines = Api::<Machine>::namespaced(self.client()?, namespace);
        let own = ListParams::default()
            .fields(&format!("spec.virtualMachineUid={}", vm.uid().ok_or_else(|| not_running(vm))?));
        let found = machines.list(&own).await.map_err(ApiError::internal)?.items;
        found.into_iter().max_by_key(|machine| machine.spec.epoch).ok_or_else(|| not_running(vm))
    }
}

/// The reason why a virtual machine has no console and no ports.
fn not_running(vm: &VirtualMachine) -> ApiError {
    let name = vm.name_any();
    if !vm.spec.running {
        let advice = format!("VM \"{name}\" is switched off: `evroc compute vm start {name}` starts it");
        return refusal(StatusCode::CONFLICT, advice);
    }
    let ready = vm.status.as_ref().and_then(|status| conditions::get(&status.conditions, READY));
    let why = ready.filter(|ready| ready.status != "True").map_or("it is being created", |ready| &ready.message);
    refusal(StatusCode::CONFLICT, format!("VM \"{name}\" does not run yet: {why}"))
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

/// The entrance for tunnels of hosts.
struct Entrance(Streams);

#[async_trait]
impl Connect for Entrance {
    async fn connect(&self, asked: ConnectRequest) -> Result<Response<ResponseBody>, ApiError> {
        // Operators may do everything but pretend to be a host: streams would end at them.
        if asked.identity.user != format!("system:node:{}", asked.name) {
            let message = format!("only the node of host \"{}\" can open its tunnel", asked.name);
            return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message));
        }
        let response = self.0.0.tunnels.accept(&asked.name, asked.request);
        Ok(response.map(|_| body::empty()))
    }
}

#[derive(Clone, Copy)]
enum What {
    Console,
    Port,
    Log,
}

/// Streams of virtual machines.
struct MachineStream {
    streams: Streams,
    what: What,
}

#[async_trait]
impl Connect for MachineStream {
    async fn connect(&self, asked: ConnectRequest) -> Result<Response<ResponseBody>, ApiError> {
        let vm = VirtualMachine::deserialize(&asked.object).map_err(ApiError::internal)?;
        let name = format!("VM \"{}\"", asked.name);
        let machine = self.streams.machine(&asked.namespace, &vm).await?;
        let (host, uid) = (&machine.spec.host_name, machine.uid().unwrap_or_default());
        let tunnels = &self.streams.0.tunnels;
        let phase = machine.status.as_ref().and_then(|status| status.phase);
        let is_running = matches!(
            phase,
            Some(MachinePhase::Running | MachinePhase::Paused | MachinePhase::Stopping | MachinePhase::Unknown)
        );
        if !matches!(self.what, What::Log) && !is_running {
            return Err(not_running(&vm));
        }
        let stream = match self.what {
            What::Log => {
                let bytes = number(&asked, "tailBytes")?.unwrap_or(TAIL_BYTES);
                let log = tunnels.serial_log(host, &uid, bytes).await.map_err(|error| failed(&name, &error))?;
                return Ok(text(pieces(log)));
            }
            What::Console => {
                websocket::check(&asked.request)?;
                tunnels.console(host, &uid).await
            }
            What::Port => {
                let port = port(&asked)?;
                websocket::check(&asked.request)?;
                tunnels.dial_machine(host, &uid, port).await
            }
        };
        let stream = stream.map_err(|error| failed(&name, &error))?;
        let end = match self.what {
            What::Console => format!("{name} was stopped or restarted"),
            _ => format!("{name} closed the connection"),
        };
        Ok(websocket::accept(asked.request, stream, end, self.streams.0.stop.clone()))
    }
}

/// Logs of services.
struct ServiceLog(Streams);

#[async_trait]
impl Connect for ServiceLog {
    async fn connect(&self, asked: ConnectRequest) -> Result<Response<ResponseBody>, ApiError> {
        let options = LogOptions {
            follow: parameter(&asked, "follow") == Some("true"),
            tail_lines: number(&asked, "tailLines")?,
            since: time(&asked, "sinceTime")?,
            timestamps: parameter(&asked, "timestamps") == Some("true"),
        };
        let hosts = Api::<Host>::all(self.0.client()?).list(&ListParams::default()).await;
        let hosts = hosts.map_err(ApiError::internal)?;
        let tunnels = &self.0.0.tunnels;
        let of = (asked.namespace.as_str(), asked.name.as_str());
        let asking = hosts.items.iter().map(|host| {
            let host = host.name_any();
            async move { tunnels.service_log(&host, of, options).await }
        });
        let mut logs = vec![];
        let mut problem = None;
        for answer in futures::future::join_all(asking).await {
            match answer {
                Ok(log) => logs.push(pieces(log)),
                Err(error) => problem = Some(failed(&format!("service \"{}\"", asked.name), &error)),
            }
        }
        match problem {
            // Some logs are better than none; without a host there is nothing to tell.
            Some(problem) if logs.is_empty() => Err(problem),
            _ => Ok(text(futures::stream::select_all(logs))),
        }
    }
}

type Pieces = futures::stream::BoxStream<'static, Result<bytes::Bytes, body::BoxError>>;

fn pieces(answer: Incoming) -> Pieces {
    answer.into_data_stream().map_err(body::BoxError::from).boxed()
}

fn text(
    pieces: impl futures::Stream<Item = Result<bytes::Bytes, body::BoxError>> + Send + 'static,
) -> Response<ResponseBody> {
    let mut response = Response::new(body::stream(pieces));
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn parameter<'a>(asked: &'a ConnectRequest, name: &str) -> Option<&'a str> {
    let query = asked.request.uri().query().unwrap_or_default();
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn number(asked: &ConnectRequest, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(text) = parameter(asked, name) else { return Ok(None) };
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| ApiError::bad_request(format!("{name}: expected a number of 0 or more, found {text:?}")))
}

fn time(asked: &ConnectRequest, name: &str) -> Result<Option<jiff::Timestamp>, ApiError> {
    let Some(text) = parameter(asked, name) else { return Ok(None) };
    let parsed = text.replace("%3A", ":").parse().map(Some);
    parsed.map_err(|_| {
        ApiError::bad_request(format!("{name}: expected a time as in 2026-01-02T03:04:05.6Z, found {text:?}"))
    })
}

fn port(asked: &ConnectRequest) -> Result<u16, ApiError> {
    let text = parameter(asked, "port").unwrap_or_default();
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| {
        ApiError::bad_request(format!(
            "port: expected a number from 1 to 65535, as in portforward?port=22, found {text:?}"
        ))
    })
}
