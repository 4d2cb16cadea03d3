//! A host without hardware: the product's own agents over drivers in memory.
//!
//! The agents speak to the API as `system:node:<name>`. The drivers keep book of what runs: two machines on one volume, two with one
//! address, or more memory than the host has are [`SimHost::violations`], which every story expects to be empty.

mod agents;
mod behaviour;
mod hardware;
mod life;
mod pool;

use std::sync::Arc;

use evroc_apiserver::server::IdentityService;
use evroc_controller::Clock;
use evroc_node::container::memory::MemoryContainers;
use evroc_node::machine::memory::{MemoryGuests, Shares};
use evroc_node::net::memory::MemoryNetwork;
use evroc_node::pool::{MemoryPool, Pool};
use evroc_tunnel::Tunnels;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::agents::Agents;
pub use self::behaviour::{Behaviour, HostSize};
pub use self::hardware::IMAGE;
use self::pool::SimPool;

/// A simulated host; dropping it kills its agents.
pub struct SimHost {
    name: String,
    behaviour: watch::Sender<Behaviour>,
    pool: MemoryPool,
    guests: MemoryGuests,
    containers: MemoryContainers,
    network: MemoryNetwork,
    restart: Arc<Notify>,
    task: JoinHandle<()>,
    state: TempDir,
}

/// How often the end of a host waits for the agents, or removes their folder: far more often than it has ever to.
const ATTEMPTS: usize = 10_000;

impl Drop for SimHost {
    fn drop(&mut self) {
        self.task.abort();
        // What the agents have under way may still write into their folder, and a folder that gets a file is not removed.
        for _ in 0..ATTEMPTS {
            if self.task.is_finished() {
                break;
            }
            std::thread::yield_now();
        }
        for _ in 0..ATTEMPTS {
            match std::fs::remove_dir_all(self.state.path()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::yield_now(),
                _ => break,
            }
        }
    }
}

impl SimHost {
    pub(crate) fn start(
        name: &str,
        zone: &str,
        size: HostSize,
        (api, tunnels): (IdentityService, Tunnels),
        clock: Clock,
        runtime: &Handle,
    ) -> Self {
        let state = tempfile::tempdir().expect("a folder for the agents");
        let behaviour = watch::Sender::new(Behaviour::default());
        let pool = MemoryPool::new(size.disk_gb << 30);
        pool.add_image(hardware::base());
        let shares = Shares { memory_bytes: Some(size.memory_gb << 30), pool: Some(pool.clone()) };
        let (guests, containers) = (MemoryGuests::sharing(shares), MemoryContainers::default());
        let network = MemoryNetwork::default();
        let asked = guests.clone();
        network.answer_ssh(move |uid| asked.greets(uid));
        let restart = Arc::new(Notify::new());
        let agents = Agents {
            name: name.into(),
            zone: zone.into(),
            size,
            api,
            clock,
            tunnels,
            state: state.path().to_owned(),
            pool: Arc::new(SimPool { inner: pool.clone(), behaviour: behaviour.subscribe() }),
            guests: guests.clone(),
            containers: containers.clone(),
            network: network.clone(),
            behaviour: behaviour.subscribe(),
            restart: restart.clone(),
        };
        let task = runtime.spawn(agents.run());
        Self { name: name.into(), behaviour, pool, guests, containers, network, restart, task, state }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes its behaviour from now on.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        self.behaviour.send_modify(|behaviour| {
            change(behaviour);
            behaviour.plant(&self.guests, &self.containers);
        });
    }

    /// Makes the guest of a virtual machine power itself off.
    ///
    /// # Panics
    /// If it does not run here.
    pub fn power_off(&self, virtual_machine: &str) {
        let running = self.guests.configurations().into_iter().find(|machine| machine.name == virtual_machine);
        self.guests
            .power_off(&running.unwrap_or_else(|| panic!("{virtual_machine} does not run on {}", self.name)).uid);
    }

    /// The folder of its agents.
    pub(crate) fn state(&self) -> &std::path::Path {
        self.state.path()
    }

    /// The drivers of guests and containers, for faults of a single one.
    pub fn drivers(&self) -> (&MemoryGuests, &MemoryContainers) {
        (&self.guests, &self.containers)
    }

    /// The machines that it runs now, by the name of their virtual machine.
    pub fn machines(&self) -> Vec<String> {
        self.guests.configurations().into_iter().map(|machine| machine.name).collect()
    }

    /// The containers that it runs now, by name.
    pub fn replicas(&self) -> Vec<String> {
        self.containers.running_names()
    }

    /// Everything that it has ever started, machines first and each in order: `Machine/` and the virtual machine's name, or
    /// `Replica/name`.
    pub fn starts(&self) -> Vec<String> {
        let machines = self.guests.starts().into_iter().map(|name| format!("Machine/{name}"));
        let replicas = self.containers.starts().into_iter().map(|name| format!("Replica/{name}"));
        machines.chain(replicas).collect()
    }

    /// Kills the agents; they start again at once, without memory.
    pub fn restart_agents(&self) {
        self.restart.notify_one();
    }

    /// The uids of the volumes that it has.
    pub async fn volumes(&self) -> Vec<String> {
        self.pool.list().await.map(|listing| listing.volumes.into_keys().collect()).unwrap_or_default()
    }

    /// Loses a volume's data, as a disk that breaks does.
    pub fn lose_volume(&self, uid: &str) {
        self.pool.lose(uid);
    }

    /// Returns the requests that should never have been made.
    pub fn violations(&self) -> Vec<String> {
        self.guests.violations().into_iter().chain(self.network.violations()).collect()
    }
}
