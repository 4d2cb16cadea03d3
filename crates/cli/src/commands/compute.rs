//! `evroc compute`: virtual machines and disks.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use evroc_api::compute::{GUEST_READY, VirtualMachine, VirtualMachineStatusType};
use evroc_api::conditions::{self, READY};
use futures::StreamExt;
use http_body_util::BodyExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::ssh;
use crate::config::Cloud;
use crate::{api, table, terminal, websocket};

const GROUP: &str = "compute.evroclabs.net";
/// Ctrl-] leaves a console, as in telnet and virsh.
const ESCAPE: u8 = 0x1d;
/// How long a console that broke is tried again (a part of the cloud restarts within a second or two), and how often.
const ATTACH_AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_millis(500));

/// The commands of `evroc compute`.
#[derive(Subcommand)]
pub enum Compute {
    /// Virtual machines
    #[command(subcommand, visible_alias = "vm")]
    Virtualmachine(Vm),
    /// Disks
    #[command(subcommand)]
    Disk(Disk),
}

/// The commands of `evroc compute vm`.
#[derive(Subcommand)]
pub enum Vm {
    /// List virtual machines
    List(List),
    /// Show one virtual machine
    Get { name: String },
    /// Start a virtual machine
    Start { name: String },
    /// Power a virtual machine off; disks and addresses are kept
    Stop { name: String },
    /// Delete a virtual machine; its disks are kept
    Delete { name: String },
    /// Attach to the serial console; Ctrl-] leaves
    Console(Wait),
    /// Print what the guest wrote to its serial console
    Log {
        name: String,
        /// How many bytes from the end
        #[arg(long, default_value_t = 65_536)]
        tail_bytes: u64,
    },
    /// Open a shell in the guest, or run a command: evroc compute vm ssh NAME -- COMMAND
    Ssh(ssh::Ssh),
    /// Join standard input and output with a port of the guest
    #[command(hide = true)]
    Proxy { name: String, port: u16 },
}

/// The commands of `evroc compute disk`.
#[derive(Subcommand)]
pub enum Disk {
    /// List disks
    List(List),
    /// Delete a disk and its data
    Delete { name: String },
}

/// How a list is shown.
#[derive(Args)]
pub struct List {
    /// All columns
    #[arg(long)]
    wide: bool,
    /// Only those with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

/// Which virtual machine, and how long to wait for its guest.
#[derive(Args)]
pub struct Wait {
    /// The virtual machine
    pub name: String,
    /// How many seconds to wait for it
    #[arg(long, default_value_t = 180)]
    pub wait_seconds: u64,
}

/// Runs a command.
pub async fn run(cloud: &Cloud, command: Compute) -> anyhow::Result<ExitCode> {
    match command {
        Compute::Virtualmachine(Vm::Ssh(arguments)) => return ssh::run(cloud, arguments).await,
        Compute::Virtualmachine(command) => virtual_machine(cloud, command).await?,
        Compute::Disk(Disk::List(list)) => show(cloud, "disks", list).await?,
        Compute::Disk(Disk::Delete { name }) => {
            let disks = Api::<evroc_api::compute::Disk>::namespaced(cloud.client.clone(), &cloud.namespace);
            disks.delete(&name, &DeleteParams::default()).await.context("cannot delete the disk")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn virtual_machine(cloud: &Cloud, command: Vm) -> anyhow::Result<()> {
    let vms = Api::<VirtualMachine>::namespaced(cloud.client.clone(), &cloud.namespace);
    let power = |running: bool| Patch::Merge(json!({"spec": {"running": running}}));
    match command {
        Vm::List(list) => show(cloud, "virtualmachines", list).await,
        Vm::Get { name } => {
            table::print(
                &api::table(cloud, &api::path(cloud, GROUP, "virtualmachines", &format!("/{name}"))).await?,
                true,
            );
            Ok(())
        }
        Vm::Start { name } => {
            vms.patch(&name, &PatchParams::default(), &power(true)).await.map(|_| ()).context("cannot start the VM")
        }
        Vm::Stop { name } => {
            vms.patch(&name, &PatchParams::default(), &power(false)).await.map(|_| ()).context("cannot stop the VM")
        }
        Vm::Delete { name } => {
            vms.delete(&name, &DeleteParams::default()).await.map(|_| ()).context("cannot delete the VM")
        }
        Vm::Console(wait) => console(cloud, wait).await,
        Vm::Log { name, tail_bytes } => {
            let mut stdout = tokio::io::stdout();
            stdout.write_all(&serial_log(cloud, &name, tail_bytes).await?).await?;
            stdout.flush().await.context("cannot print")
        }
        Vm::Proxy { name, port } => {
            let path = api::path(cloud, GROUP, "virtualmachines", &format!("/{name}/portforward?port={port}"));
            let stream = websocket::open(cloud, &path).await?;
            match websocket::join(stream, tokio::io::stdin(), tokio::io::stdout(), None).await? {
                websocket::End::Broken(why) => bail!("{why}"),
                _ => Ok(()),
            }
        }
        Vm::Ssh(_) => Ok(()),
    }
}

async fn show(cloud: &Cloud, plural: &str, list: List) -> anyhow::Result<()> {
    let query = list.selector.map(|s| format!("?labelSelector={}", encode(&s))).unwrap_or_default();
    table::print(&api::table(cloud, &api::path(cloud, GROUP, plural, &query)).await?, list.wide);
    Ok(())
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

async fn console(cloud: &Cloud, wait: Wait) -> anyhow::Result<()> {
    wait_for(cloud, &wait, READY).await?;
    let path = api::path(cloud, GROUP, "virtualmachines", &format!("/{}/console", wait.name));
    let mut stream = websocket::open(cloud, &path).await?;
    eprintln!("Connected to the serial console of {}. Ctrl-] leaves; Enter shows the prompt.", wait.name);
    // One for all: a read that is under way when a stream breaks belongs to the next.
    let mut input = tokio::io::stdin();
    loop {
        let raw = terminal::Raw::enter()?;
        let ended = websocket::join(stream, &mut input, tokio::io::stdout(), Some(ESCAPE)).await;
        drop(raw);
        match ended? {
            websocket::End::Escaped => {
                eprintln!("\nLeft the console of {}.", wait.name);
                return Ok(());
            }
            websocket::End::Far(why) => {
                eprintln!("\nThe console was closed: {why}.");
                return Ok(());
            }
            websocket::End::Broken(why) => eprintln!("\nThe console was interrupted ({why}); attaching again."),
        }
        let deadline = tokio::time::Instant::now() + ATTACH_AGAIN.0;
        stream = loop {
            match websocket::open(cloud, &path).await {
                Ok(stream) => break stream,
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(ATTACH_AGAIN.1).await,
            }
        };
    }
}

/// The last bytes that the guest wrote to its serial console.
pub async fn serial_log(cloud: &Cloud, name: &str, tail_bytes: u64) -> anyhow::Result<Vec<u8>> {
    let path = api::path(cloud, GROUP, "virtualmachines", &format!("/{name}/log?tailBytes={tail_bytes}"));
    Ok(api::get(cloud, &path, "*/*").await?.into_body().collect().await?.to_bytes().to_vec())
}

/// Waits until a condition of the virtual machine holds, telling what it waits for; at the deadline the last lines of the
/// serial console say how far the guest came.
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
    let mut told = String::new();
    loop {
        let vm = match tokio::time::timeout_at(deadline, changes.next()).await {
            Ok(Some(Ok(vm))) => vm,
            Ok(Some(Err(error))) => {
                eprintln!("waiting: {error}");
                continue;
            }
            Ok(None) => bail!("the cloud ended the watch"),
            Err(_) => return Err(gave_up(cloud, wait, &told).await),
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
        if now != told {
            eprintln!("waiting for {}: {now}", wait.name);
            told = now;
        }
        if status.virtual_machine_status == Some(VirtualMachineStatusType::ProvisioningFailed) {
            bail!("VM \"{}\" cannot run: {told}", wait.name);
        }
    }
}

async fn gave_up(cloud: &Cloud, wait: &Wait, told: &str) -> anyhow::Error {
    let text = match serial_log(cloud, &wait.name, 4096).await {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(no serial log: {error:#})"),
    };
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n  | ");
    anyhow::anyhow!("gave up after {} s: {told}\nThe last lines of the serial console:\n  | {last}", wait.wait_seconds)
}
