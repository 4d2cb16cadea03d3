//! Streams of virtual machines: console, port forward, log of the serial console.

use async_trait::async_trait;
use evroc_api::compute::VirtualMachine;
use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Host, Machine, MachinePhase};
use evroc_apiserver::body::{self, ResponseBody};
use evroc_apiserver::{ApiError, Connect, ConnectRequest};
use futures::{StreamExt, TryStreamExt};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Deserialize;

use super::places::Place;
use super::websocket::{self, End};
use super::{Streams, failed, query, refusal, text};

/// The default of `tailBytes` for a virtual machine's `log`.
const TAIL_BYTES: u64 = 64 << 10;

#[derive(Clone, Copy)]
pub(super) enum What {
    Console,
    Port,
    Log,
}

/// Streams of virtual machines.
pub(super) struct MachineStream {
    pub streams: Streams,
    pub what: What,
}

#[async_trait]
impl Connect for MachineStream {
    async fn connect(&self, stream_request: ConnectRequest) -> Result<Response<ResponseBody>, ApiError> {
        let place = self.streams.0.places.take(&stream_request.identity)?;
        let vm = VirtualMachine::deserialize(&stream_request.object).map_err(ApiError::internal)?;
        let machine = machine_of(&self.streams, &stream_request.namespace, &vm).await?;
        match self.what {
            What::Log => {
                let bytes = query::number(&stream_request, "tailBytes")?.unwrap_or(TAIL_BYTES);
                let is_previous = query::flag(&stream_request, "previous");
                self.log(&vm, machine.as_ref(), (bytes, is_previous), place).await
            }
            What::Console | What::Port => {
                let machine = machine.filter(is_running).ok_or_else(|| not_running(&vm))?;
                self.open(stream_request, &machine, place).await
            }
        }
    }
}

/// Returns the machine that runs a virtual machine, if any.
pub(super) async fn machine_of(
    streams: &Streams,
    namespace: &str,
    vm: &VirtualMachine,
) -> Result<Option<Machine>, ApiError> {
    let Some(uid) = vm.uid() else { return Ok(None) };
    let machines = Api::<Machine>::namespaced(streams.client()?, namespace);
    let own = ListParams::default().fields(&format!("spec.virtualMachineUid={uid}"));
    let found = machines.list(&own).await.map_err(ApiError::internal)?.items;
    Ok(found.into_iter().max_by_key(|machine| machine.spec.epoch))
}

impl MachineStream {
    async fn open(
        &self,
        stream_request: ConnectRequest,
        machine: &Machine,
        place: Place,
    ) -> Result<Response<ResponseBody>, ApiError> {
        let name = format!("VM \"{}\"", stream_request.name);
        let (host, uid) = (&machine.spec.host_name, machine.uid().unwrap_or_default());
        let tunnels = &self.streams.0.tunnels;
        let (stream, end) = match self.what {
            What::Port => {
                let port = query::port(&stream_request)?;
                websocket::check(&stream_request.request)?;
                let end = End { reason: format!("{name} closed the connection"), has_directions: true };
                (tunnels.dial_machine(host, &uid, port).await, end)
            }
            _ => {
                websocket::check(&stream_request.request)?;
                let end = End { reason: format!("{name} was stopped or restarted"), has_directions: false };
                (tunnels.console(host, &uid).await, end)
            }
        };
        let stream = stream.map_err(|error| failed(&name, &error))?;
        Ok(websocket::accept(stream_request.request, stream, end, self.streams.0.stop.clone(), place))
    }

    async fn log(
        &self,
        vm: &VirtualMachine,
        machine: Option<&Machine>,
        (bytes, is_previous): (u64, bool),
        place: Place,
    ) -> Result<Response<ResponseBody>, ApiError> {
        let tunnels = &self.streams.0.tunnels;
        let log = match (is_previous, machine) {
            (false, None) => return Err(not_running(vm)),
            (false, Some(machine)) => {
                tunnels.serial_log(&machine.spec.host_name, &machine.uid().unwrap_or_default(), bytes).await
            }
            (true, machine) => {
                let mut hosts = self.hosts_of(machine).await?.into_iter();
                let uid = vm.uid().unwrap_or_default();
                let mut log = tunnels.previous_serial_log(&hosts.next().unwrap_or_default(), &uid, bytes).await;
                for host in hosts {
                    match log {
                        Ok(_) => break,
                        Err(_) => log = tunnels.previous_serial_log(&host, &uid, bytes).await,
                    }
                }
                log
            }
        };
        let log = log.map_err(|error| failed(&format!("VM \"{}\"", vm.name_any()), &error))?;
        Ok(text(pieces(log).inspect(move |_| _ = &place)))
    }

    /// The hosts that may have the log of the run before the present one: that of the machine, or all that are connected while the virtual
    /// machine has no machine, as between two tries to start it.
    async fn hosts_of(&self, machine: Option<&Machine>) -> Result<Vec<String>, ApiError> {
        if let Some(machine) = machine {
            return Ok(vec![machine.spec.host_name.clone()]);
        }
        let hosts = Api::<Host>::all(self.streams.client()?).list(&ListParams::default()).await;
        let names = hosts.map_err(ApiError::internal)?.items.into_iter().map(|host| host.name_any());
        let names: Vec<String> = names.filter(|host| self.streams.0.tunnels.is_connected(host)).collect();
        if names.is_empty() {
            return Err(ApiError::unavailable("no host is connected: try again"));
        }
        Ok(names)
    }
}

pub(super) fn is_running(machine: &Machine) -> bool {
    let phase = machine.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(MachinePhase::Running | MachinePhase::Paused | MachinePhase::Stopping | MachinePhase::Unknown))
}

/// The reason why a virtual machine has no console and no ports.
pub(super) fn not_running(vm: &VirtualMachine) -> ApiError {
    let name = vm.name_any();
    if !vm.spec.running {
        let advice = format!("VM \"{name}\" is switched off: `evroc compute vm start {name}` starts it");
        return refusal(StatusCode::CONFLICT, advice);
    }
    let ready = vm.status.as_ref().and_then(|status| conditions::get(&status.conditions, READY));
    let why = ready.filter(|ready| ready.status != "True").map_or("it is being created", |ready| &ready.message);
    refusal(StatusCode::CONFLICT, format!("VM \"{name}\" does not run yet: {why}"))
}

fn pieces(answer: Incoming) -> futures::stream::BoxStream<'static, Result<bytes::Bytes, body::BoxError>> {
    answer.into_data_stream().map_err(body::BoxError::from).boxed()
}
