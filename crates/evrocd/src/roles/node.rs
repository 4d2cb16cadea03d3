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
use evroc_node::agent::{self, Draining};
use evroc_node::container::fetch::RegistryClient;
use evroc_node::container::image::ImageStore as ContainerImages;
use evroc_node::container::runner::{ContainerRunner, RunnerConfig as ContainerConfig};
use evroc_node::container::unpack::{UnpackLauncher, Unpacker};
use evroc_node::dial::{Dialer, server::DialServer};
use evroc_node::image::ImageStore as DiskImages;
use evroc_node::machine::{MachineRunner, RunnerConfig as MachineConfig};
use evroc_node::net::uplink::Uplink;
use evroc_node::net::vpc::{HostNetwork, NetworkConfig};
use evroc_node::pool::{LocalPool, Owner, Pool};
use evroc_node::shim::{ShimLauncher, User};
use evroc_node::tunnel::{TunnelConfig, keep_connected};
use evroc_vmm::probe::{Kind, Payload, Probe};
use evroc_vmm::{ImageTool, Qemu};
use tokio::sync::watch;

use super::{Command, Report, RoleConfig, RoleContext, api};

/// Where Debian puts the OCI runtime.
const OCI_RUNTIME: &str = "/usr/sbin/runc";
/// A machine without memory to spare, or without its packages, may have them a minute later.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// The image that an accelerator is probed with, and what it prints when its system is up.
const PROBE_IMAGE: (&str, &str) = ("tiny.1-0.1", "evroc-guest: ready");
/// Of an instance's uids: whom shims become, and the first of its guests.
const UIDS: (u32, u32) = (4, 1000);
/// The user that changes volumes whose bytes a guest's hypervisor has written: offset in the instance's uids.
const VOLUME_TOOL_UID: u32 = 6;
/// The uid of the processes that unpack image layers, counted from the instance's first.
const UNPACKER_UID: u32 = 5;
/// How often an unreachable API is asked again at the start.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Runs until SIGTERM; [`Command::Drain`] stops all that runs here.
pub async fn run(mut context: RoleContext) -> anyhow::Result<()> {
    let node = Node::open(&context.config).await?;
    let work = (context.config.mode == super::RoleMode::Serve).then(|| tokio::spawn(node.clone().serve()));
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

/// What this host runs, and what it runs it with. It needs no API: that comes with [`Node::serve`].
#[derive(Clone)]
struct Node {
    config: Arc<RoleConfig>,
    draining: Draining,
    replicas: Arc<Replicas>,
    replicas_ended: Once<agent::replica::Ended>,
    machines: Arc<Machines>,
    machines_ended: Once<agent::machine::Ended>,
    volumes: Arc<Volumes>,
    images: DiskImages,
    netns: PathBuf,
    dialer: Dialer,
    network: HostNetwork,
    qemu: Qemu,
    accelerator: Arc<watch::Sender<Option<Accelerator>>>,
    conditions: HostConditions,
}

/// Something that is taken once.
type Once<T> = Arc<std::sync::Mutex<Option<T>>>;

fn take<T>(once: &Once<T>) -> Option<T> {
    once.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

impl Node {
    async fn open(config: &Arc<RoleConfig>) -> anyhow::Result<Self> {
        let state = &config.role_dir;
        let base = Context::new(api::client(config)?);
        let draining = Draining::default();
        let conditions = HostConditions::default();
        let dialer = Dialer::start().context("cannot start the thread that makes sockets")?;
        let shim = ShimLauncher::evrocd(&config.program);
        let shim_id = config.uid_base + UIDS.0;
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
            },
            dialer.clone(),
        )?;
        let netns = runner.netns_dir();
        let unpacker = Unpacker::Process(UnpackLauncher::evrocd(&config.program, config.uid_base + UNPACKER_UID));
        let registry = Arc::new(RegistryClient::new(config.api_url(), api::tls(config)?));
        let images = ContainerImages::open(&state.join("containers"), registry, unpacker)?;
        let logs = ServiceLogs::new(state.join("logs"));
        let (replicas, replicas_ended) =
            Replicas::new(base.clone(), config.host_name.clone(), runner, images, logs, draining.clone());

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
                first_uid: Some(config.uid_base + UIDS.1),
            },
            pool.clone(),
        )?;
        let mut network = NetworkConfig::new(&config.instance, &config.run_dir, state);
        network.uplink = uplink(&config.uplink)?;
        let network = HostNetwork::resume(network, dialer.clone()).await?;
        let (accelerator, probed) = watch::channel(None);
        let (machines, machines_ended) = Machines::new(
            base.clone(),
            config.host_name.clone(),
            state,
            runner,
            network.clone(),
            probed,
            draining.clone(),
        )?;
        let volumes = Arc::new(Volumes { base, host: config.host_name.clone(), pool, conditions: conditions.clone() });
        Ok(Self {
            config: config.clone(),
            draining,
            replicas,
            replicas_ended: Arc::new(std::sync::Mutex::new(Some(replicas_ended))),
            machines,
            machines_ended: Arc::new(std::sync::Mutex::new(Some(machines_ended))),
            volumes,
            images: disk_images,
            netns,
            dialer,
            network,
            qemu,
            accelerator: Arc::new(accelerator),
            conditions,
        })
    }

    /// The agent's work; ends only when it is aborted.
    async fn serve(self) {
        let (Some(replicas_ended), Some(machines_ended)) = (take(&self.replicas_ended), take(&self.machines_ended))
        else {
            return;
        };
        let context = self.volumes.base.clone();
        let host = agent::host::run(
            context.clone(),
            self.config.host_name.clone(),
            self.config.zone.clone(),
            Arc::new(ThisHost::new(self.volumes.pool.clone())),
            self.accelerator.subscribe(),
            self.conditions.clone(),
        );
        let agents = async {
            self.first_look().await;
            tokio::join!(
                agent::replica::run(self.replicas.clone(), replicas_ended),
                agent::machine::run(self.machines.clone(), machines_ended),
                agent::log_sweep::run(context.clone(), self.replicas.logs().clone()),
            )
        };
        let images = agent::image::run(DiskImagesAgent {
            base: context.clone(),
            images: Arc::new(self.images.clone()),
            pool: self.volumes.pool.clone(),
            conditions: self.conditions.clone(),
        });
        // No agent waits for another: what fails in one does not keep the others from their work.
        let volumes = agent::volume::run(self.volumes.clone());
        tokio::join!(host, images, volumes, self.dial(), self.streams(), self.probe(), agents);
    }

    /// Looks once, as soon as the API answers, for what is on this host and should not be.
    async fn first_look(&self) {
        loop {
            let looked = async {
                self.replicas.sweep().await?;
                self.machines.sweep().await
            };
            match looked.await {
                Ok(()) => return,
                Err(error) => tracing::info!(error = chain(&error), "the API does not answer yet"),
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn dial(&self) {
        let socket = self.config.run_dir.join("dial.sock");
        match DialServer::bind(&socket, &self.netns, self.config.edge_uid, self.dialer.clone()) {
            Ok(server) => server.run().await,
            Err(error) => tracing::error!(%error, "no service can be reached: dial.sock cannot be opened"),
        }
    }

    /// Consoles, connections and logs, through the tunnel that control asks through.
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
        let payload = match self.images.get(PROBE_IMAGE.0, None).await {
            Ok(image) => Payload::Image { disk: image.base, marker: PROBE_IMAGE.1.into() },
            Err(_) => Payload::BootSector,
        };
        let mut probe = Probe::new(payload, &self.config.role_dir);
        let guest = self.config.uid_base + UIDS.1;
        probe.user = Some((guest, guest));
        probe.qemu = self.qemu.clone();
        let record = self.config.role_dir.join("accel.json");
        loop {
            let error = match probe.run_cached(&record).await {
                Ok(verdict) => {
                    let name = if verdict.accelerator == Kind::Kvm { "kvm" } else { "tcg" };
                    tracing::info!(accelerator = name, reason = verdict.reason, "guests run with");
                    self.accelerator.send_replace(Some(Accelerator { name: name.into(), reason: verdict.reason }));
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
            self.accelerator.send_replace(Some(Accelerator { name: NO_ACCELERATOR.into(), reason: error }));
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

/// `none`, `host`, or `netns:<path>`.
fn uplink(text: &str) -> anyhow::Result<Uplink> {
    match text.split_once(':') {
        None if text == "none" => Ok(Uplink::None),
        None if text == "host" => Ok(Uplink::Host),
        Some(("netns", path)) => Ok(Uplink::Netns(path.into())),
        _ => anyhow::bail!("uplink: expected none, host or netns:PATH, found {text:?}"),
    }
}
