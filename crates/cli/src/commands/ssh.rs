//! `evroc compute vm ssh`: the system's ssh, through the API; the VM needs no public address.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use evroc_api::compute::{Disk, GUEST_READY, VirtualMachine};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::config::Cloud;
use crate::known_hosts;
use crate::vm::{Wait, wait_for};

/// The arguments for `ssh`.
#[derive(Args)]
pub struct Ssh {
    #[command(flatten)]
    wait: Wait,
    /// The user in the guest
    #[arg(long, default_value = "evroc-user")]
    user: String,
    /// The private key [default: the one that `make run` made]
    #[arg(long, short = 'i')]
    identity: Option<std::path::PathBuf>,
    /// A command to run instead of a shell
    #[arg(last = true)]
    command: Vec<String>,
}

/// Waits for the guest, then hands over to ssh; its exit code is ours.
pub async fn run(cloud: &Cloud, arguments: Ssh) -> anyhow::Result<ExitCode> {
    let vm = wait_for(cloud, &arguments.wait, GUEST_READY).await?;
    let itself = std::env::current_exe().context("the path of this program is unknown")?;
    let proxy = format!(
        "\"{}\" --config \"{}\" -n {} compute vm proxy {} 22",
        itself.display(),
        cloud.kubeconfig.display(),
        cloud.namespace,
        arguments.wait.name
    );
    let identity = arguments.identity.unwrap_or_else(|| cloud.folder.join("id_ed25519"));
    let known_hosts = cloud.folder.join("known_hosts");
    let alias = alias(cloud, &vm, &known_hosts).await?;
    let status = tokio::process::Command::new("ssh")
        .arg("-o")
        .arg(format!("ProxyCommand={proxy}"))
        .arg("-o")
        .arg(format!("UserKnownHostsFile=\"{}\"", known_hosts.display()))
        .arg("-o")
        .arg(format!("HostKeyAlias={alias}"))
        // Names are read by the next call.
        .arg("-o")
        .arg("HashKnownHosts=no")
        .arg("-o")
        .arg("StrictHostKeyChecking=accept-new")
        .arg("-o")
        .arg("IdentitiesOnly=yes")
        .arg("-o")
        .arg("LogLevel=ERROR")
        .arg("-i")
        .arg(&identity)
        .arg(format!("{}@{}", arguments.user, arguments.wait.name))
        .args(if arguments.command.is_empty() { None } else { Some("--") })
        .args(&arguments.command)
        .status()
        .await
        .context("cannot start ssh: install openssh-client")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The name of the guest in the file of known hosts, which is tidied.
async fn alias(cloud: &Cloud, vm: &VirtualMachine, known_hosts: &Path) -> anyhow::Result<String> {
    let (namespace, vm_uid) = (&cloud.namespace, vm.uid().unwrap_or_default());
    let boot = vm.spec.boot_disk().map(|disk| disk.name.clone()).unwrap_or_default();
    let disk = Api::<Disk>::namespaced(cloud.client.clone(), namespace).get_opt(&boot).await;
    // A disk that cannot be found has its name.
    let disk = disk.context("cannot read the boot disk")?.and_then(|disk| disk.uid()).unwrap_or(boot);
    let vms = Api::<VirtualMachine>::namespaced(cloud.client.clone(), namespace);
    let vms = vms.list_metadata(&ListParams::default()).await.context("cannot list the VMs")?;
    let vms: BTreeSet<String> = vms.items.iter().filter_map(ResourceExt::uid).collect();
    let alias = known_hosts::alias(namespace, &vm_uid, &disk);
    known_hosts::tidy(known_hosts, namespace, &vms, &alias)?;
    Ok(alias)
}
