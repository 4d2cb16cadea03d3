//! A virtual machine as several commands need it: waiting for its guest, and what its serial console shows.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use evroc_api::compute::{GUEST_READY, VirtualMachine, VirtualMachineStatusType};
use evroc_api::conditions::{self, READY};
use futures::StreamExt;
use http_body_util::BodyExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};

use crate::config::Cloud;
use crate::{api, errors, names};

/// The API group of virtual machines and disks.
pub const GROUP: &str = "compute.evroclabs.net";

/// The virtual machine, and how long to wait for its guest.
#[derive(Args)]
pub struct Wait {
    /// The virtual machine
    #[arg(value_parser = names::parse)]
    pub name: String,
    /// How many seconds to wait for it
    #[arg(long, default_value_t = 180)]
    pub wait_seconds: u64,
}

/// Waits until a condition of the virtual machine is true, and prints the condition's message meanwhile. At the deadline the error
/// shows the last lines of the serial console.
pub async fn wait_for(cloud: &Cloud, wait: &Wait, condition: &str) -> anyhow::Result<VirtualMachine> {
    let vms = Api::<VirtualMachine>::namespaced(cloud.client.clone(), &cloud.namespace);
    let Some(vm) =
        vms.get_opt(&wait.name).await.context("the cloud does not answer; `evrocd status` says what runs")?
    else {
        bail!(
            "there is no VM \"{}\" in resource group {}: `evroc compute vm list` shows those that there are",
            wait.name,
            cloud.namespace
        );
    };
    if !vm.spec.running {
        bail!("VM \"{0}\" is switched off: `evroc compute vm start {0}` starts it", wait.name);
    }
    let only = watcher::Config::default().fields(&format!("metadata.name={}", wait.name));
    let mut changes = watcher(vms, only).default_backoff().applied_objects().boxed();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait.wait_seconds);
    let mut reported = String::new();
    loop {
        let vm = match tokio::time::timeout_at(deadline, changes.next()).await {
            Ok(Some(Ok(vm))) => vm,
            Ok(Some(Err(error))) => {
                eprintln!("waiting: {}", errors::text(&error.into()));
                continue;
            }
            Ok(None) => bail!("the cloud ended the watch"),
            Err(_) => return Err(gave_up(cloud, wait, &reported).await),
        };
        let status = vm.status.clone().unwrap_or_default();
        if conditions::is_true(&status.conditions, condition) {
            return Ok(vm);
        }
        let pending = [READY, GUEST_READY]
            .into_iter()
            .filter_map(|c| conditions::get(&status.conditions, c))
            .find(|c| c.status != "True");
        let now = pending.map_or_else(|| "it is being created".to_owned(), |c| c.message.clone());
        if now != reported {
            eprintln!("waiting for {}: {now}", wait.name);
            reported = now;
        }
        if status.virtual_machine_status == Some(VirtualMachineStatusType::ProvisioningFailed) {
            bail!("VM \"{}\" cannot run: {reported}", wait.name);
        }
    }
}

/// The run of a guest that a log is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The one that goes on, or ended last.
    Present,
    /// The one before it, as far as its host still has the log.
    Previous,
}

/// The last bytes that the guest wrote to its serial console.
pub async fn serial_log(cloud: &Cloud, name: &str, run: Run, tail_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let previous = if run == Run::Previous { "&previous=true" } else { "" };
    let path = api::path(cloud, GROUP, "virtualmachines", &format!("/{name}/log?tailBytes={tail_bytes}{previous}"));
    Ok(api::get(cloud, &path, "*/*").await?.into_body().collect().await?.to_bytes().to_vec())
}

/// The error at the deadline.
async fn gave_up(cloud: &Cloud, wait: &Wait, reported: &str) -> anyhow::Error {
    let text = match serial_log(cloud, &wait.name, Run::Present, 4096).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(no serial log: {error:#})"),
    };
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n  | ");
    anyhow::anyhow!(
        "gave up after {} s: {reported}\nThe last lines of the serial console:\n  | {last}",
        wait.wait_seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cloud that answers with the path that it was asked for.
    fn cloud() -> Cloud {
        let echo = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(path.into_bytes())))
        });
        let client = kube::Client::new(echo, "demo");
        Cloud { client, namespace: "demo".into(), folder: "/nowhere".into(), kubeconfig: "/nowhere".into() }
    }

    #[tokio::test]
    async fn the_log_of_the_previous_run_is_asked_for() {
        let of = async |run| String::from_utf8(serial_log(&cloud(), "web", run, 7).await.unwrap()).unwrap();
        let path = "/apis/compute.evroclabs.net/v1alpha1/namespaces/demo/virtualmachines/web/log?tailBytes=7";
        assert_eq!(of(Run::Present).await, path);
        assert_eq!(of(Run::Previous).await, format!("{path}&previous=true"));
    }
}
