//! `evroc compute vm ssh`: the system's ssh, through the API; the VM needs no public address.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use evroc_api::compute::GUEST_READY;
use kube::ResourceExt;

use crate::config::Cloud;
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
    let status = tokio::process::Command::new("ssh")
        .arg("-o")
        .arg(format!("ProxyCommand={proxy}"))
        .arg("-o")
        .arg(format!("UserKnownHostsFile=\"{}\"", known_hosts.display()))
        // A VM is known by its uid: a later one of the same name is another host.
        .arg("-o")
        .arg(format!("HostKeyAlias={}", vm.uid().unwrap_or_default()))
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
