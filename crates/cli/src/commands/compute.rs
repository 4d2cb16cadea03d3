//! `evroc compute`: virtual machines, disks and placement groups.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use evroc_api::compute::VirtualMachine;
use evroc_api::conditions::READY;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::arguments::{Named, Power};
use super::list::List;
use super::{placement_group, power, ssh};
use crate::config::Cloud;
use crate::stdout::Stdout;
use crate::vm::{GROUP, Wait, serial_log, wait_for};
use crate::{api, table, terminal, vm, websocket};

/// Ctrl-] leaves a console, as in telnet and virsh.
const ESCAPE: u8 = 0x1d;
/// How long a console that broke is tried again: a part of the cloud restarts within a second or two.
const REATTACH_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two tries.
const REATTACH_PAUSE: Duration = Duration::from_millis(500);

/// The commands of `evroc compute`.
#[derive(Subcommand)]
pub enum Compute {
    /// Virtual machines
    #[command(subcommand, visible_alias = "vm")]
    Virtualmachine(Vm),
    /// Disks
    #[command(subcommand)]
    Disk(Disk),
    /// Placement groups: virtual machines on different hosts
    #[command(subcommand, visible_aliases = ["placement-group", "pg"])]
    Placementgroup(placement_group::PlacementGroup),
}

/// The commands of `evroc compute vm`.
#[derive(Subcommand)]
pub enum Vm {
    /// List virtual machines
    List(List),
    /// Show one virtual machine
    Get(Named),
    /// Start a virtual machine
    Start(Named),
    /// Power a virtual machine off and wait until it is; disks and addresses are kept
    Stop(Power),
    /// End the guest and start it again
    Restart(Power),
    /// Stop executing the guest; its memory and its connections stay
    Pause(Named),
    /// Go on with a paused guest
    Resume(Named),
    /// Press the reset button: the guest starts again without being asked
    Reset(Named),
    /// Delete a virtual machine; its disks are kept
    Delete {
        #[command(flatten)]
        vm: Named,
        /// Do not ask the guest to power off: what it has not written is lost
        #[arg(long)]
        force: bool,
    },
    /// Attach to the serial console; Ctrl-] leaves
    Console(Wait),
    /// Print the output on the guest's serial console
    Log {
        #[command(flatten)]
        vm: Named,
        /// How many bytes from the end
        #[arg(long, default_value_t = 65_536)]
        tail_bytes: u64,
        /// The output of the run before the present one, as after a crash
        #[arg(long, short)]
        previous: bool,
    },
    /// Open a shell in the guest, or run a command: evroc compute vm ssh NAME -- COMMAND
    Ssh(ssh::Ssh),
    /// Join standard input and output with a port of the guest
    #[command(hide = true)]
    Proxy {
        #[command(flatten)]
        vm: Named,
        port: u16,
    },
}

/// The commands of `evroc compute disk`.
#[derive(Subcommand)]
pub enum Disk {
    /// List disks
    List(List),
    /// Delete a disk and its data
    Delete(Named),
}

/// Runs a command.
pub async fn run(cloud: &Cloud, command: Compute) -> anyhow::Result<ExitCode> {
    match command {
        Compute::Virtualmachine(command) => return virtual_machine(cloud, command).await,
        Compute::Disk(Disk::List(list)) => list.show(cloud, GROUP, "disks").await?,
        Compute::Disk(Disk::Delete(Named { name })) => {
            let disks = Api::<evroc_api::compute::Disk>::namespaced(cloud.client.clone(), &cloud.namespace);
            disks.delete(&name, &DeleteParams::default()).await.context("cannot delete the disk")?;
        }
        Compute::Placementgroup(command) => placement_group::run(cloud, command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn virtual_machine(cloud: &Cloud, command: Vm) -> anyhow::Result<ExitCode> {
    let vms = Api::<VirtualMachine>::namespaced(cloud.client.clone(), &cloud.namespace);
    let done = match command {
        Vm::List(list) => list.show(cloud, GROUP, "virtualmachines").await,
        Vm::Get(Named { name }) => {
            table::print(
                &api::table(cloud, &api::path(cloud, GROUP, "virtualmachines", &format!("/{name}"))).await?,
                true,
            );
            Ok(())
        }
        Vm::Start(Named { name }) => {
            let on = Patch::Merge(json!({"spec": {"running": true}}));
            vms.patch(&name, &PatchParams::default(), &on).await.map(|_| ()).context("cannot start the VM")
        }
        Vm::Stop(stop) => power::stop(cloud, &vms, &stop).await,
        Vm::Restart(restart) => power::restart(cloud, &vms, &restart).await,
        Vm::Pause(Named { name }) => power::act(cloud, &name, "pause").await.context("cannot pause the VM"),
        Vm::Resume(Named { name }) => power::act(cloud, &name, "resume").await.context("cannot resume the VM"),
        Vm::Reset(Named { name }) => power::act(cloud, &name, "reset").await.context("cannot reset the VM"),
        Vm::Delete { vm: Named { name }, force } => {
            let deleted = vms.delete(&name, &DeleteParams::default()).await.map(|_| ()).context("cannot delete the VM");
            match force {
                true if deleted.is_ok() => power::end_now(cloud, &name).await.context("cannot end the guest"),
                _ => deleted,
            }
        }
        Vm::Console(wait) => console(cloud, wait).await,
        Vm::Log { vm: Named { name }, tail_bytes, previous } => {
            let run = if previous { vm::Run::Previous } else { vm::Run::Present };
            let mut stdout = tokio::io::stdout();
            stdout.write_all(&terminal::printable(&serial_log(cloud, &name, run, tail_bytes).await?)).await?;
            stdout.flush().await.context("cannot print")
        }
        Vm::Proxy { vm: Named { name }, port } => {
            let path = api::path(cloud, GROUP, "virtualmachines", &format!("/{name}/portforward?port={port}"));
            let stream = websocket::open(cloud, &path).await?;
            match websocket::join(stream, tokio::io::stdin(), Stdout::new(), None).await? {
                websocket::End::Broken(why) => bail!("{why}"),
                _ => Ok(()),
            }
        }
        Vm::Ssh(arguments) => return ssh::run(cloud, arguments).await,
    };
    done.map(|()| ExitCode::SUCCESS)
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
        let deadline = tokio::time::Instant::now() + REATTACH_LIMIT;
        stream = loop {
            match websocket::open(cloud, &path).await {
                Ok(stream) => break stream,
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(REATTACH_PAUSE).await,
            }
        };
    }
}
