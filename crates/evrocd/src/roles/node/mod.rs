//! `node`: guests and containers of this host, and its network.

mod probe;
mod retry;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use evroc_controller::{Context, chain};
use evroc_node::agent::host::{Accelerator, HostConditions, ThisHost};
use evroc_node::agent::image::DiskImages as DiskImagesAgent;
use evroc_node::agent::machine::Machines;
use evroc_node::agent::replica::Replicas;
use evroc_node::agent::service_log::ServiceLogs;
use evroc_node::agent::streams::Streams;
use evroc_node::agent::volume::Volumes;
use evroc_node::agent::{self, DrainFlag};
use evroc_node::cgroup::{Cgroups, shims_group};
use evroc_node::container::containers::HostContainers;
use evroc_node::container::fetch::RegistryClient;
use evroc_node::container::image::ImageStore as ContainerImages;
use evroc_node::container::runner::{CREATE_DEADLINE, ContainerRunner, ContainerRunnerConfig};
use evroc_node::container::unpack::{UnpackLauncher, Unpacker};
use evroc_node::dial::{Dialer, server::DialServer};
use evroc_node::image::ImageStore as DiskImages;
use evroc_node::machine::{MachineRunner, MachineRunnerConfig};
use evroc_node::net::network::Network as _;
use evroc_node::net::uplink::Uplink;
use evroc_node::net::vpc::{HostNetwork, NetworkConfig};
use evroc_node::pool::{LocalPool, Owner, Pool};
use evroc_node::shim::{ShimLauncher, ShimUsers};
use evroc_tunnel::{TunnelConfig, TunnelKind, keep_connected};
use evroc_vmm::{ImageTool, Qemu};
use tokio::sync::watch;

use retry::{pauses, until_done};

use super::tls::{self, Reloads};
use super::{Command, Report, RoleConfig, RoleContext, api};

/// The path of the OCI runtime in Debian.
const OCI_RUNTIME: &str = "/usr/sbin/runc";
/// The first of the users that shims become, and how many they are: offset in the instance's uids, beyond those of guests.
const FIRST_SHIM_UID: u32 = 40_000;
const SHIM_UIDS: u32 = 20_000;
/// The first user that guests run as: offset in the instance's uids.
const FIRST_GUEST_UID: u32 = 1000;
/// The user that changes volumes whose bytes a guest's hypervisor has written: offset in the instance's uids.
const VOLUME_TOOL_UID: u32 = 6;
/// The uid of the processes that unpack image layers, counted from the instance's first.
const UNPACKER_UID: u32 = 5;

/// Runs until SIGTERM; [`Command::Drain`] stops all that runs here.
pub async fn run(mut context: RoleContext) -> anyhow::Result<()> {
    let (node, ended) = Node::open(&context.config, &context.reloads).await?;
    let work = (context.config.mode == super::RoleMode::Serve).then(|| tokio::spawn(node.clone().serve(ended)));
    context.ready().await;
    let stop = context.stop.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                work.inspect(tokio::task::JoinHandle::abort);
                return Ok(());
            }
            Some(command) = context.commands.recv() => if let Command::Drain { timeout_seconds } = command {
                let report = node.drain(&context, Duration::from_secs(timeout_seconds)).await;
                context.report(report).await;
            }
        }
    }
}

/// The workloads of this host, and their drivers. It needs no API: that comes with [`Node::serve`].
#[derive(Clone)]
struct Node {
    config: Arc<RoleConfig>,
    tls: watch::Receiver<Arc<rustls::ClientConfig>>,
    draining: DrainFlag,
    replicas: Arc<Replicas>,
    machines: Arc<Machines>,
    volumes: Arc<Volumes>,
    images: DiskImages,
    netns: PathBuf,
    dialer: Dialer,
    network: HostNetwork,
    qemu: Qemu,
    accelerator: Arc<watch::Sender<Option<Accelerator>>>,
    conditions: HostConditions,
}

/// The notifications that wake the agents when a workload ends.
struct Ended {
    replicas: agent::replica::Changed,
    machines: agent::machine::Changes,
}

impl Node {
    async fn open(config: &Arc<RoleConfig>, reloads: &Reloads) -> anyhow::Result<(Self, Ended)> {
        let state = &config.role_dir;
        let base = Context::new(api::client(config, reloads)?);
        let own = config.clone();
        let tls = reloads.keep(move || tls::client(&own))?;
        let draining = DrainFlag::default();
        let conditions = HostConditions::default();
        let dialer = Dialer::start().context("cannot start the thread that makes sockets")?;
        let shim = ShimLauncher::evrocd(&config.program);
        let shim_cgroups = Cgroups::discover().and_then(|all| all.limit_memory(&shims_group(&config.instance), None));
        let shim_cgroups = shim_cgroups.unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "shims stay in the node's group and count towards its limit");
            vec![]
        });
        let shim_users = ShimUsers::new(state.join("shims"), config.uid_base + FIRST_SHIM_UID, SHIM_UIDS);

        let runner = ContainerRunner::new(
            ContainerRunnerConfig {
                instance: config.instance.clone(),
                state_dir: state.clone(),
                run_dir: config.run_dir.clone(),
                runtime: OCI_RUNTIME.into(),
                shim: shim.clone(),
                shim_users: Some(shim_users.clone()),
                shim_cgroups: shim_cgroups.clone(),
                create_deadline: CREATE_DEADLINE,
            },
            dialer.clone(),
        )?;
        let netns = runner.netns_dir();
        let unpacker = Unpacker::Process(UnpackLauncher::evrocd(&config.program, config.uid_base + UNPACKER_UID));
        let registry = Arc::new(RegistryClient::new(config.api_url(), tls.clone()));
        let images = ContainerImages::open(&state.join("containers"), registry, unpacker)?;
        let logs = ServiceLogs::new(state.join("logs"));
        let containers = Arc::new(HostContainers::new(runner, images));
        let (replicas, replicas_changed) =
            Replicas::new(base.clone(), config.host_name.clone(), containers, logs, draining.clone());

        let qemu = Qemu::default().as_installed().await.unwrap_or_else(|error| {
            tracing::error!(%error, "QEMU cannot be executed: containers run, virtual machines do not");
            Qemu::default()
        });
        let disk_images = DiskImages::open(state.join("images"), ImageTool::default())?;
        let tool_user = config.uid_base + VOLUME_TOOL_UID;
        let tool_user = Owner { uid: tool_user, gid: tool_user };
        let pool = LocalPool::open(state.join("volumes"), disk_images.clone(), Some(tool_user))?;
        let pool: Arc<dyn Pool> = Arc::new(pool);
        let runner = MachineRunner::new(
            MachineRunnerConfig {
                instance: config.instance.clone(),
                state_dir: state.clone(),
                run_dir: config.run_dir.clone(),
                hypervisor: Arc::new(qemu.clone()),
                shim,
                shim_users: Some(shim_users),
                shim_cgroups,
                first_uid: Some(config.uid_base + FIRST_GUEST_UID),
            },
            pool.clone(),
        )?;
        let mut network = NetworkConfig::new(&config.instance, &config.run_dir, state);
        network.uplink = uplink(&config.uplink)?;
        network.conditions = conditions.clone();
        let network = HostNetwork::resume(network, dialer.clone()).await?;
        let (accelerator, probed) = watch::channel(None);
        let (machines, machine_changes) = Machines::new(
            base.clone(),
            config.host_name.clone(),
            state,
            Arc::new(runner),
            Arc::new(network.clone()),
            probed,
            draining.clone(),
            conditions.clone(),
        )?;
        let volumes = Arc::new(Volumes { base, host: config.host_name.clone(), pool, conditions: conditions.clone() });
        let ended = Ended { replicas: replicas_changed, machines: machine_changes };
        let node = Self {
            config: config.clone(),
            tls,
            draining,
            replicas,
            machines,
            volumes,
            images: disk_images,
            netns,
            dialer,
            network,
            qemu,
            accelerator: Arc::new(accelerator),
            conditions,
        };
        Ok((node, ended))
    }

    /// The agents' work; ends only when it is aborted. No agent waits for another: what fails in one does not keep the others from their
    /// work.
    async fn serve(self, ended: Ended) {
        let context = self.volumes.base.clone();
        let host = agent::host::run(
            context.clone(),
            self.config.host_name.clone(),
            self.config.zone.clone(),
            Arc::new(ThisHost::new(self.volumes.pool.clone())),
            self.accelerator.subscribe(),
            self.conditions.clone(),
        );
        // Unwanted workloads of a former run are removed before new work of the same kind begins.
        let replicas = async {
            until_done("remove the containers that are not wanted any more", pauses(), || self.replicas.sweep()).await;
            agent::replica::run(self.replicas.clone(), ended.replicas).await;
        };
        let machines = async {
            until_done("compare the machines of this host with the API", pauses(), || self.machines.sweep()).await;
            agent::machine::run(self.machines.clone(), ended.machines).await;
        };
        let logs = agent::log_sweep::run(context.clone(), self.replicas.logs().clone());
        let images = agent::image::run(DiskImagesAgent {
            base: context.clone(),
            images: Arc::new(self.images.clone()),
            pool: self.volumes.pool.clone(),
            conditions: self.conditions.clone(),
        });
        let volumes = agent::volume::run(self.volumes.clone());
        let tools = agent::host::tools::all(Path::new(OCI_RUNTIME));
        let tools = agent::host::tools::run(tools, self.conditions.clone(), agent::host::tools::LOOK_AGAIN);
        tokio::join!(host, tools, images, volumes, replicas, machines, logs, self.dial(), self.streams(), self.probe());
    }

    async fn dial(&self) {
        let socket = self.config.run_dir.join("dial.sock");
        match DialServer::bind(&socket, &self.netns, self.config.edge_uid, self.dialer.clone()) {
            Ok(server) => server.run().await,
            Err(error) => tracing::error!(%error, "no service can be reached: dial.sock cannot be opened"),
        }
    }

    /// Serves consoles, connections and logs, through the tunnel to control.
    async fn streams(&self) {
        let config = || {
            let (api, host) = (self.config.api_url().parse()?, self.config.host_name.clone());
            anyhow::Ok(TunnelConfig { api, host, kind: TunnelKind::Node, tls: self.tls.clone() })
        };
        match config() {
            Ok(config) => keep_connected(config, Streams::new(self.machines.clone(), self.replicas.clone())).await,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "no console, ssh or log: no tunnel can be opened")
            }
        }
    }

    /// Stops every guest and container; the next ordinary start runs them again.
    async fn drain(&self, context: &RoleContext, timeout: Duration) -> Report {
        self.draining.set();
        context.report(Report::Progress { message: "stopping guests and containers".into() }).await;
        let ((stopped, killed), containers) = tokio::join!(self.machines.stop_all(timeout), self.replicas.stop_all());
        if let Err(error) = self.network.remove_all().await {
            tracing::warn!(error = chain(&error), "cannot remove the networks of this host");
        }
        Report::Drained { stopped: stopped + containers, killed }
    }
}

/// `none`, `host`, or `netns:<path>`.
fn uplink(text: &str) -> anyhow::Result<Uplink> {
    match text.split_once(':') {
        None if text == "none" => Ok(Uplink::None),
        None if text == "host" => Ok(Uplink::Host),
        Some(("netns", path)) => Ok(Uplink::Netns(path.into())),
        _ => anyhow::bail!("uplink: expected none, host or netns:PATH, found {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_read() {
        assert_eq!(uplink("none").unwrap(), Uplink::None);
        assert_eq!(uplink("host").unwrap(), Uplink::Host);
        assert_eq!(uplink("netns:/run/x").unwrap(), Uplink::Netns("/run/x".into()));
        assert!(uplink("other").is_err() && uplink("other:/x").is_err());
    }
}
