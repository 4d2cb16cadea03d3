//! Power of a virtual machine: off, off and on again, pause, resume, reset.

use std::time::Duration;

use anyhow::{Context, bail};
use evroc_api::compute::{VirtualMachine, VirtualMachineStatusType as State};
use evroc_api::conditions::{self, READY};
use http::Request;
use kube::api::Api;
use kube::client::Body;
use kube::runtime::wait::{Condition, await_condition};

use super::arguments::Power;
use crate::api;
use crate::api::Refused;
use crate::config::Cloud;
use crate::vm::GROUP;

/// Asks for an action on a virtual machine; returns when it is done or under way.
pub async fn act(cloud: &Cloud, name: &str, action: &str) -> anyhow::Result<()> {
    let path = api::path(cloud, GROUP, "virtualmachines", &format!("/{name}/{action}"));
    api::send(cloud, Request::post(path).body(Body::empty())?).await.map(|_| ())
}

/// Powers a virtual machine off.
pub async fn stop(cloud: &Cloud, vms: &Api<VirtualMachine>, stop: &Power) -> anyhow::Result<()> {
    let name = &stop.vm.name;
    act(cloud, name, &with_force("stop", stop.force)).await.context("cannot stop the VM")?;
    until(vms, stop, "stopped", |vm: Option<&VirtualMachine>| vm.is_none_or(|vm| state(vm) == Some(State::Stopped)))
        .await
}

/// Ends this run of a virtual machine and begins the next.
pub async fn restart(cloud: &Cloud, vms: &Api<VirtualMachine>, restart: &Power) -> anyhow::Result<()> {
    let name = &restart.vm.name;
    let before = vms.get(name).await.context("cannot restart the VM")?;
    let run = epoch(&before);
    act(cloud, name, &with_force("restart", restart.force)).await.context("cannot restart the VM")?;
    let is_again = move |vm: Option<&VirtualMachine>| {
        vm.is_none_or(|vm| {
            let is_ready = vm.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, READY));
            is_ready && epoch(vm) > run
        })
    };
    until(vms, restart, "running again", is_again).await
}

/// Ends the guest of a virtual machine that is being deleted.
pub async fn end_now(cloud: &Cloud, name: &str) -> anyhow::Result<()> {
    match act(cloud, name, &with_force("stop", true)).await {
        // It has ended already.
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|it| it.code == http::StatusCode::NOT_FOUND) => {
            Ok(())
        }
        other => other,
    }
}

fn with_force(action: &str, is_forced: bool) -> String {
    let query = if is_forced { "?gracePeriodSeconds=0" } else { "" };
    format!("{action}{query}")
}

fn state(vm: &VirtualMachine) -> Option<State> {
    vm.status.as_ref()?.virtual_machine_status
}

fn epoch(vm: &VirtualMachine) -> Option<i64> {
    vm.status.as_ref()?.epoch
}

/// Waits for a state of the virtual machine, unless its user does not want that.
async fn until(
    vms: &Api<VirtualMachine>,
    power: &Power,
    what: &str,
    is_done: impl Condition<VirtualMachine>,
) -> anyhow::Result<()> {
    if power.no_wait {
        return Ok(());
    }
    let name = &power.vm.name;
    let waiting = await_condition(vms.clone(), name, is_done);
    match tokio::time::timeout(Duration::from_secs(power.wait_seconds), waiting).await {
        Ok(ended) => ended.map(|_| ()).context("cannot watch the VM"),
        Err(_) => bail!(
            "VM \"{name}\" is not {what} after {} s; it goes on: `evroc compute vm get {name}` shows how far it is",
            power.wait_seconds
        ),
    }
}
