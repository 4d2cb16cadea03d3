//! `node`: guests and containers of this host, and its network.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use evroc_controller::{Context, chain};
use evroc_node::agent::host::{Accelerator, HostConditions, NO_ACCELERATOR, ThisHost};
use evroc_node::agent::image::DiskImages as DiskImagesAgent;
use evroc_node::agent::machine::Machines;
use evroc_node::agent::replica::Replicas;
use evroc_node::agent::service_log::ServiceLogs;
use evroc_node::agent::streams::Streams;
use evroc_node::agent::volume::Volumes;
use evroc_node::agent::{self, DrainFlag};
use evroc_node::container::containers::HostContainers;
use evroc_node::container::fetch::RegistryClient;
use evroc_node::container::image::ImageStore as ContainerImages;
use evroc_node::container::runner::{CREATE_DEADLINE, ContainerRunner, RunnerConfig as ContainerConfig};
use evroc_node::container::unpack::{UnpackLauncher, Unpacker};
use evroc_node::dial::{Dialer, server::DialServer};
use evroc_node::image::ImageStore as DiskImages;
use evroc_node::machine::{MachineRunner, RunnerConfig as MachineConfig};
use evroc_node::net::network::Network as _;
use evroc_node::net::uplink::Uplink;
use evroc_node::net::vpc::{HostNetwork, NetworkConfig};
use evroc_node::pool::{LocalPool, Owner, Pool};
use evroc_node::shim::{ShimLauncher, User};
use evroc_tunnel::{TunnelConfig, keep_connected};
use evroc_vmm::probe::{Payload, Probe};
use evroc_vmm::{ImageTool, Qemu};
use tokio::sync::watch;

use super::{Command, Report, RoleConfig, RoleContext, api};

/// The path of the OCI runtime in Debian.
const OCI_RUNTIME: &str = "/usr/sbin/runc";
/// A machine without memory to spare, or without its packages, may have them a minute later.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// The image that an accelerator is probed with.
const PROBE_IMAGE: &str = "tiny.1-0.1";
/// The line that the probe's image prints when its system is up.
const PROBE_MARKER: &str = "evroc-guest: ready";
/// The user that shims become: offset in the instance's uids.
const SHIM_UID: u32 = 4;
/// The first user that guests run as: offset in the instance's uids.
const FIRST_GUEST_UID: u32 = 1000;
/// The user that changes volumes whose bytes a guest's hypervisor has written: offset in the instance's uids.
const VOLUME_TOOL_UID: u32 = 6;
/// The uid of the processes that unpack image layers, counted from the instance's first.
const UNPACKER_UID: u32 = 5;
/// The pause before work at the start of an agent is tried again, and what it grows to. The API is often a moment later than the node;
/// an error that stays is no reason to ask all the time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs until SIGTERM; [`Command::Drain`] stops all that runs here.
pub async fn run(mut context: RoleContext) -> anyhow::Result<()> {
    let (node, ended) = Node::open(&context.config).await?;
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
    async fn open(config: &Arc<RoleConfig>) -> anyhow::Result<(Self, Ended)> {
        let state = &config.role_dir;
        let base = Context::new(api::client(config)?);
        let draining = DrainFlag::default();
        let conditions = HostConditions::default();
        let dialer = Dialer::start().context("cannot start the thread that makes sockets")?;
        let shim = ShimLauncher::evrocd(&config.program);
        let shim_id = config.uid_base + SHIM_UID;
        let shim_user = User { uid: shim_id, gid: shim_id, groups: vec![] };

        let runner = ContainerRunner::new(
            ContainerConfig {
                instance: config.instance.clone(),
                state_dir: state.clone(),
                run_dir: config.run_dir.clone(),
                runtime: OCI_RUNTIME.into(),
                shim: shim.clone(),
                shim_user: Some(shim_user.clone()),
                shim_cgroups: vec![],
                create_deadline: CREATE_DEADLINE,
            },
            dialer.clone(),
        )?;
        let netns = runner.netns_dir();
        let unpacker = Unpacker::Process(UnpackLauncher::evrocd(&config.program, config.uid_base + UNPACKER_UID));
        let registry = Arc::new(RegistryClient::new(config.api_url(), api::tls(config)?));
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
            MachineConfig {
                instance: config.instance.clone(),
                state_dir: state.clone(),
                run_dir: config.run_dir.clone(),
                hypervisor: Arc::new(qemu.clone()),
                shim,
                shim_user: Some(shim_user),
                shim_cgroups: vec![],
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
        tokio::join!(host, images, volumes, replicas, machines, logs, self.dial(), self.streams(), self.probe());
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
            anyhow::Ok(TunnelConfig { api, host, tls: Arc::new(api::tls(&self.config)?) })
        };
        match config() {
            Ok(config) => keep_connected(config, Streams::new(self.machines.clone(), self.replicas.clone())).await,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "no console, ssh or log: no tunnel can be opened")
            }
        }
    }

    /// Finds out how guests run; a machine that is to start waits for it.
    async fn probe(&self) {
        let payload = match self.images.get(PROBE_IMAGE, None).await {
            Ok(image) => Payload::Image { disk: image.base, marker: PROBE_MARKER.into() },
            Err(_) => Payload::BootSector,
        };
        let mut probe = Probe::new(payload, &self.config.role_dir);
        let guest = self.config.uid_base + FIRST_GUEST_UID;
        probe.user = Some((guest, guest));
        probe.qemu = self.qemu.clone();
        let record = self.config.role_dir.join("accel.json");
        loop {
            let error = match probe.run_cached(&record).await {
                Ok(verdict) => {
                    tracing::info!(
                        accelerator = verdict.accelerator.name(),
                        reason = verdict.reason,
                        "guests run with"
                    );
                    let offers = self.machines.owned().guests().offers(verdict.accelerator).await;
                    let offers = offers.unwrap_or_else(|error| {
                        tracing::error!(error = chain(&error), "the hypervisor does not say what hardware it offers");
                        evroc_vmm::Offers::default()
                    });
                    let found = Accelerator { kind: Some(verdict.accelerator), reason: verdict.reason, offers };
                    self.accelerator.send_replace(Some(found));
                    return;
                }
                Err(error) => chain(&error),
            };
            tracing::error!(error, "no guest can run on this host, will be tried again");
            // For `evrocd status`; no verdict, so the next try does not take it for one.
            let said = serde_json::json!({"accelerator": NO_ACCELERATOR, "reason": error}).to_string();
            if let Err(error) = std::fs::write(&record, said) {
                tracing::warn!(%error, path = %record.display(), "cannot write what the probe found");
            }
            let offers = evroc_vmm::Offers::default();
            self.accelerator.send_replace(Some(Accelerator { kind: None, reason: error, offers }));
            tokio::time::sleep(PROBE_AGAIN).await;
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

/// The pauses between tries.
fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_PAUSE), |pause| Some((*pause * 2).min(LONGEST_PAUSE)))
}

/// Does something until it succeeds. Logs each failure that differs from the one before, with the operation that failed.
async fn until_done<E, F>(operation: &str, pauses: impl Iterator<Item = Duration>, work: impl Fn() -> F)
where
    E: std::error::Error,
    F: Future<Output = Result<(), E>>,
{
    let mut before = String::new();
    for pause in pauses {
        let Err(error) = work().await else { return };
        let message = chain(&error);
        if message != before {
            tracing::warn!(operation, error = message, "failed at the start, will be tried again");
        }
        before = message;
        tokio::time::sleep(pause).await;
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
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_at_the_start_is_tried_until_it_succeeds_and_holds_up_nothing_else() {
        let tries = AtomicU32::new(0);
        let at_once = || std::iter::repeat(Duration::ZERO);
        let fails_thrice = until_done("count", at_once(), || async {
            if tries.fetch_add(1, Ordering::SeqCst) < 3 { Err(std::io::Error::other("not yet")) } else { Ok(()) }
        });
        let never = until_done("refuse", at_once(), || async { Err(std::io::Error::other("422")) });
        tokio::select! {
            () = fails_thrice => {}
            () = never => panic!("it never succeeds"),
        }
        assert_eq!(tries.load(Ordering::SeqCst), 4);
        assert_eq!((pauses().next(), pauses().nth(100)), (Some(FIRST_PAUSE), Some(LONGEST_PAUSE)));
    }

    #[test]
    fn the_way_out_is_read() {
        assert_eq!(uplink("none").unwrap(), Uplink::None);
        assert_eq!(uplink("host").unwrap(), Uplink::Host);
        assert_eq!(uplink("netns:/run/x").unwrap(), Uplink::Netns("/run/x".into()));
        assert!(uplink("other").is_err() && uplink("other:/x").is_err());
    }
}
