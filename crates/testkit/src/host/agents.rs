//! The agents of a simulated host: those of the product, killed and started again as a test likes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evroc_apiserver::server::IdentityService;
use evroc_controller::{Clock, Context, Result};
use evroc_node::agent::host::{Accelerator, HostConditions};
use evroc_node::agent::machine::Machines;
use evroc_node::agent::replica::Replicas;
use evroc_node::agent::service_log::ServiceLogs;
use evroc_node::agent::streams::Streams;
use evroc_node::agent::{DrainFlag, host, image, machine, replica, volume};
use evroc_node::container::memory::MemoryContainers;
use evroc_node::machine::AcceleratorKind;
use evroc_node::machine::guests::Guests as _;
use evroc_node::machine::memory::MemoryGuests;
use evroc_node::net::memory::MemoryNetwork;
use evroc_node::pool::Pool;
use evroc_tunnel::{Tunnels, serve_connection};
use hyper_util::rt::TokioIo;
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::hardware::{Hardware, OneImage};
use super::life::Mortal;
use super::{Behaviour, HostSize};

/// The parts of a host's agents, over restarts.
pub(super) struct Agents {
    pub name: String,
    pub zone: String,
    pub size: HostSize,
    pub api: IdentityService,
    pub clock: Clock,
    pub tunnels: Tunnels,
    pub state: PathBuf,
    pub pool: Arc<dyn Pool>,
    pub guests: MemoryGuests,
    pub containers: MemoryContainers,
    pub network: MemoryNetwork,
    pub behaviour: watch::Receiver<Behaviour>,
    pub restart: Arc<Notify>,
}

impl Agents {
    /// Runs the agents whenever the host is not silent: silence kills them, and they start again, without memory.
    pub async fn run(self) {
        let mut behaviour = self.behaviour.clone();
        // Ends with the host.
        while behaviour.wait_for(|behaviour| !behaviour.is_silent).await.is_ok() {
            let end = CancellationToken::new();
            let _ends_with_this_life = end.clone().drop_guard();
            tokio::select! {
                () = self.work(&end) => {}
                () = self.restart.notified() => {}
                _ = async { behaviour.wait_for(|behaviour| behaviour.is_silent).await.is_ok() } => {}
            }
            end.cancel();
            self.guests.interrupt();
            self.containers.interrupt();
        }
    }

    /// The work of the agents until they are killed.
    async fn work(&self, end: &CancellationToken) {
        let api = Mortal { inner: self.api.clone(), end: end.clone() };
        let base = Context { client: Client::new(api, "default"), clock: self.clock.clone() };
        let (conditions, draining) = (HostConditions::default(), DrainFlag::default());
        let accelerator = watch::Sender::new(self.accelerator().await);

        let hardware = Arc::new(Hardware { size: self.size, behaviour: self.behaviour.clone() });
        let (name, zone) = (self.name.clone(), self.zone.clone());
        let host = host::run(base.clone(), name, zone, hardware, accelerator.subscribe(), conditions.clone());
        let volumes = volume::run(Arc::new(volume::Volumes {
            base: base.clone(),
            host: self.name.clone(),
            pool: self.pool.clone(),
            conditions: conditions.clone(),
        }));
        let images = image::run(image::DiskImages {
            base: base.clone(),
            images: Arc::new(OneImage),
            pool: self.pool.clone(),
            conditions: conditions.clone(),
        });
        let (machines, changes) = Machines::new(
            base.clone(),
            self.name.clone(),
            &self.state,
            Arc::new(self.guests.clone()),
            Arc::new(self.network.clone()),
            accelerator.subscribe(),
            draining.clone(),
            conditions,
        )
        .expect("a folder for machines");
        let streamed = machines.clone();
        let machines = async {
            until_done(|| machines.sweep()).await;
            machine::run(machines.clone(), changes).await;
        };
        let logs = ServiceLogs::new(self.state.join("logs"));
        let (replicas, changed) =
            Replicas::new(base, self.name.clone(), Arc::new(self.containers.clone()), logs, draining);
        let tunnel = self.tunnel(Streams::new(streamed, replicas.clone()));
        let replicas = async {
            until_done(|| replicas.sweep()).await;
            replica::run(replicas.clone(), changed).await;
        };
        // A change of behaviour is seen at once, not at the next heartbeat.
        let mut behaviour = self.behaviour.clone();
        let heartbeats = async {
            while behaviour.changed().await.is_ok() {
                accelerator.send_replace(self.accelerator().await);
            }
            std::future::pending::<()>().await;
        };
        tokio::join!(host, volumes, images, machines, replicas, tunnel, heartbeats);
    }

    /// The tunnel to control, in memory.
    async fn tunnel(&self, streams: Arc<Streams>) {
        let (node, control) = tokio::io::duplex(1 << 16);
        let (_, _) = tokio::join!(
            serve_connection(TokioIo::new(node), streams),
            self.tunnels.serve(&self.name, TokioIo::new(control))
        );
    }

    /// Returns the result of the probe.
    async fn accelerator(&self) -> Option<Accelerator> {
        if self.behaviour.borrow().probe_never_ends {
            return None;
        }
        let offers = self.guests.offers(AcceleratorKind::Tcg).await.unwrap_or_default();
        Some(Accelerator { kind: Some(AcceleratorKind::Tcg), reason: "guests are imagined".into(), offers })
    }
}

/// Does something at the start of the agents until it succeeds, as the node does.
async fn until_done<F: Future<Output = Result<()>>>(work: impl Fn() -> F) {
    while work().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
