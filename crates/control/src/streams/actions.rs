//! Actions on virtual machines: what a user wants done at once, and what no field of a spec says.
//!
//! `stop` and `restart` change objects, and the controllers and the host's agent do the rest: what was begun is finished although a part of the cloud restarts.
//! The others, and the end of a guest without a grace period, go to the host of the machine.

use async_trait::async_trait;
use evroc_api::compute::VirtualMachine;
use evroc_api::infra::Machine;
use evroc_apiserver::body::{self, ResponseBody};
use evroc_apiserver::{ApiError, Connect, ConnectRequest};
use evroc_tunnel::MachineAction;
use http::{Method, Response, StatusCode, header};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde::Deserialize;
use serde_json::json;

use super::machine::{is_running, machine_of, not_running};
use super::{Streams, failed, query, refusal};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Power off, as `spec.running: false` does.
    Stop,
    /// End this run and begin the next.
    Restart,
    /// Stop executing the guest.
    Pause,
    /// Go on.
    Resume,
    /// Press the reset button.
    Reset,
}

/// Actions on virtual machines.
pub(super) struct MachineActions {
    pub streams: Streams,
    pub action: Action,
}

#[async_trait]
impl Connect for MachineActions {
    async fn connect(&self, stream_request: ConnectRequest) -> Result<Response<ResponseBody>, ApiError> {
        if stream_request.request.method() != Method::POST {
            return Err(ApiError::method_not_allowed());
        }
        let _place = self.streams.0.places.take(&stream_request.identity)?;
        let is_forced = is_forced(&stream_request)?;
        let vm = VirtualMachine::deserialize(&stream_request.object).map_err(ApiError::internal)?;
        let machine = machine_of(&self.streams, &stream_request.namespace, &vm).await?;
        match self.action {
            Action::Stop => self.stop(&vm, machine.as_ref(), is_forced).await?,
            Action::Restart => self.restart(&vm, machine.as_ref(), is_forced).await?,
            Action::Pause => self.act(&vm, machine.as_ref(), MachineAction::Pause).await?,
            Action::Resume => self.act(&vm, machine.as_ref(), MachineAction::Resume).await?,
            Action::Reset => self.act(&vm, machine.as_ref(), MachineAction::Reset).await?,
        }
        success()
    }
}

impl MachineActions {
    async fn stop(&self, vm: &VirtualMachine, machine: Option<&Machine>, is_forced: bool) -> Result<(), ApiError> {
        let vms = Api::<VirtualMachine>::namespaced(self.streams.client()?, &vm.namespace().unwrap_or_default());
        // Of the object that the caller was allowed to stop, not of a later one with its name.
        let change = json!({"metadata": {"uid": vm.uid()}, "spec": {"running": false}});
        vms.patch(&vm.name_any(), &PatchParams::default(), &Patch::Merge(change)).await.map_err(of_api)?;
        match machine.filter(|machine| is_forced && is_running(machine)) {
            Some(machine) => self.send(vm, machine, MachineAction::ForceStop).await,
            None => Ok(()),
        }
    }

    async fn restart(&self, vm: &VirtualMachine, machine: Option<&Machine>, is_forced: bool) -> Result<(), ApiError> {
        let machine = machine.filter(|_| vm.spec.running).ok_or_else(|| not_running(vm))?;
        let machines = Api::<Machine>::namespaced(self.streams.client()?, &vm.namespace().unwrap_or_default());
        let exactly = Preconditions { uid: machine.uid(), resource_version: None };
        let how = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
        match machines.delete(&machine.name_any(), &how).await {
            // This run has ended in the meantime.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            other => drop(other.map_err(of_api)?),
        }
        if is_forced && is_running(machine) {
            self.send(vm, machine, MachineAction::ForceStop).await?;
        }
        Ok(())
    }

    async fn act(&self, vm: &VirtualMachine, machine: Option<&Machine>, action: MachineAction) -> Result<(), ApiError> {
        let machine = machine.filter(|machine| is_running(machine)).ok_or_else(|| not_running(vm))?;
        self.send(vm, machine, action).await
    }

    async fn send(&self, vm: &VirtualMachine, machine: &Machine, action: MachineAction) -> Result<(), ApiError> {
        let (host, uid) = (&machine.spec.host_name, machine.uid().unwrap_or_default());
        let sent = self.streams.0.tunnels.act(host, &uid, action).await;
        sent.map_err(|error| failed(&format!("VM \"{}\"", vm.name_any()), &error))
    }
}

/// Whether the guest is not to be asked. How long a guest is waited for is the host's decision.
fn is_forced(stream_request: &ConnectRequest) -> Result<bool, ApiError> {
    match query::number(stream_request, "gracePeriodSeconds")? {
        None => Ok(false),
        Some(0) => Ok(true),
        Some(found) => Err(ApiError::bad_request(format!(
            "gracePeriodSeconds: expected 0, which ends the guest without asking it, or none, found {found}"
        ))),
    }
}

fn of_api(error: kube::Error) -> ApiError {
    match error {
        kube::Error::Api(status) => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            refusal(code, status.message.clone())
        }
        error => ApiError::internal(error),
    }
}

fn success() -> Result<Response<ResponseBody>, ApiError> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    let mut response = Response::new(body::full(serde_json::to_vec(&status).map_err(ApiError::internal)?));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}
