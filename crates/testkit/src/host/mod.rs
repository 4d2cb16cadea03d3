//! A host without hardware: the product's own agents for the host, its images and its volumes, over drivers in memory; and an agent
//! of its own for guests and containers.
//!
//! All speak to the API as `system:node:<name>`, one status write a step, so that clients see the states in between. The host keeps
//! a book of its workloads: two machines on one volume, two with one address, or more memory than it has are
//! [`SimHost::violations`], which every story expects to be empty.

mod hardware;
mod machine;
mod pool;
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evroc_api::infra::{Machine, Replica};
use evroc_controller::{Context, Result, api_error};
use evroc_node::agent::host::{Accelerator, HostConditions};
use evroc_node::agent::{host, image, volume};
use evroc_node::machine::AcceleratorKind;
use evroc_node::pool::{MemoryPool, Pool};
use futures::{Stream, StreamExt};
use kube::api::{Api, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use self::hardware::IMAGE;
use self::hardware::{Hardware, OneImage};
use self::pool::SimPool;

/// The resources of a host.
#[derive(Clone, Copy, Debug)]
pub struct HostSize {
    /// Processors.
    pub cpus: u32,
    /// Memory in GB.
    pub memory_gb: u64,
    /// Disk in GB.
    pub disk_gb: u64,
}

impl Default for HostSize {
    fn default() -> Self {
        Self { cpus: 4, memory_gb: 16, disk_gb: 200 }
    }
}

/// How a host misbehaves; by default not at all.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Neither reads nor writes: the agent was killed, its workloads run on. It starts again when this ends.
    pub is_silent: bool,
    /// Reports itself as not ready.
    pub is_unready: bool,
    /// Images that are not on the host: volumes of them fail.
    pub missing_images: BTreeSet<String>,
    /// It cannot be found out which volumes exist.
    pub pool_cannot_look: bool,
    /// Volumes are never made.
    pub volumes_never_ready: bool,
    /// Deleted volumes are never removed.
    pub volumes_never_go: bool,
    /// Machines cannot be started, for this reason.
    pub start_failure: Option<String>,
    /// Machines stay `Starting`.
    pub machines_never_run: bool,
    /// Guests never come up.
    pub guests_never_ready: bool,
    /// Guests do not power off on request.
    pub machines_never_end: bool,
    /// Containers fail: reason and message.
    pub replica_failure: Option<(String, String)>,
    /// Containers never accept connections.
    pub replicas_never_ready: bool,
}

/// A simulated host; dropping it kills its agent.
pub struct SimHost {
    name: String,
    behaviour: watch::Sender<Behaviour>,
    pool: MemoryPool,
    restart: Arc<Notify>,
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

/// The workloads of a host, and its violations.
#[derive(Debug, Default)]
struct Book {
    /// Machines that run, by uid: namespace and name, volumes, address.
    machines: BTreeMap<String, RunningMachine>,
    /// Containers that run, by uid.
    replicas: BTreeMap<String, String>,
    /// Machines whose guest was ordered to power itself off.
    powered_off: BTreeSet<String>,
    /// Every start, in order: `Machine/name` or `Replica/name`.
    starts: Vec<String>,
    violations: Vec<String>,
}

#[derive(Clone, Debug)]
struct RunningMachine {
    name: String,
    volumes: Vec<String>,
    address: String,
    memory_bytes: u64,
}

impl Drop for SimHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SimHost {
    pub(crate) fn start(name: &str, zone: &str, size: HostSize, context: Context) -> Self {
        let behaviour = watch::Sender::new(Behaviour::default());
        let book = Arc::default();
        let pool = MemoryPool::new(size.disk_gb << 30);
        pool.add_image(hardware::base());
        let restart = Arc::new(Notify::new());
        let agents = Agents {
            restart: restart.clone(),
            name: name.into(),
            zone: zone.into(),
            size,
            context,
            pool: Arc::new(SimPool { inner: pool.clone(), behaviour: behaviour.subscribe() }),
            behaviour: behaviour.subscribe(),
            book: Arc::clone(&book),
        };
        let task = tokio::spawn(agents.run());
        Self { name: name.into(), behaviour, pool, restart, book, task }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes its behaviour from now on.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        self.behaviour.send_modify(change);
    }

    /// Makes the guest of a virtual machine power itself off.
    pub fn power_off(&self, machine: &str) {
        self.book().powered_off.insert(machine.into());
        self.behaviour.send_modify(|_| ());
    }

    /// The machines that it runs now, by the name of their virtual machine.
    pub fn machines(&self) -> Vec<String> {
        self.book().machines.values().map(|m| m.name.clone()).collect()
    }

    /// The containers that it runs now, by name.
    pub fn replicas(&self) -> Vec<String> {
        self.book().replicas.values().cloned().collect()
    }

    /// Everything that it has ever started, in order: `Machine/` and the virtual machine's name, or `Replica/name`.
    pub fn starts(&self) -> Vec<String> {
        self.book().starts.clone()
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
        self.book().violations.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agents of a host.
struct Agents {
    restart: Arc<Notify>,
    name: String,
    zone: String,
    size: HostSize,
    context: Context,
    pool: Arc<dyn Pool>,
    behaviour: watch::Receiver<Behaviour>,
    book: Arc<Mutex<Book>>,
}

impl Agents {
    /// Runs the agents whenever the host is not silent: silence kills them, and they start again, without memory.
    async fn run(self) {
        let mut behaviour = self.behaviour.clone();
        // Ends with the host.
        while behaviour.wait_for(|behaviour| !behaviour.is_silent).await.is_ok() {
            tokio::select! {
                () = self.work() => {}
                () = self.restart.notified() => {}
                _ = async { behaviour.wait_for(|behaviour| behaviour.is_silent).await.is_ok() } => {}
            }
        }
    }

    /// The work of the agents until they are killed.
    async fn work(&self) {
        let (base, pool, conditions) = (self.context.clone(), self.pool.clone(), HostConditions::default());
        let found = Accelerator {
            kind: Some(AcceleratorKind::Tcg),
            reason: "a simulated host has no guests".into(),
            offers: Default::default(),
        };
        let accelerator = watch::Sender::new(Some(found));
        let hardware = Arc::new(Hardware { size: self.size, behaviour: self.behaviour.clone() });
        let (name, zone) = (self.name.clone(), self.zone.clone());
        let host = host::run(base.clone(), name, zone, hardware, accelerator.subscribe(), conditions.clone());
        let volumes = volume::Volumes {
            base: base.clone(),
            host: self.name.clone(),
            pool: pool.clone(),
            conditions: conditions.clone(),
        };
        let images = image::DiskImages { base: base.clone(), images: Arc::new(OneImage), pool, conditions };
        let workloads = Agent {
            name: self.name.clone(),
            size: self.size,
            context: base,
            behaviour: Behaviour::default(),
            book: self.book.clone(),
        };
        // A change of behaviour is seen at once, not at the next heartbeat.
        let mut behaviour = self.behaviour.clone();
        let heartbeats = async {
            while behaviour.changed().await.is_ok() {
                accelerator.send_modify(|_| ());
            }
            std::future::pending::<()>().await;
        };
        tokio::join!(
            host,
            volume::run(Arc::new(volumes)),
            image::run(images),
            workloads.run(self.behaviour.clone()),
            heartbeats,
        );
    }
}

/// The agent of guests and containers.
struct Agent {
    name: String,
    size: HostSize,
    context: Context,
    behaviour: Behaviour,
    book: Arc<Mutex<Book>>,
}

impl Agent {
    async fn run(mut self, mut behaviour: watch::Receiver<Behaviour>) {
        let mut events = futures::stream::select_all([self.changes::<Machine>(), self.changes::<Replica>()]);
        loop {
            self.behaviour = behaviour.borrow_and_update().clone();
            let outcome = self.look().await;
            let try_again = async {
                match &outcome {
                    // A lost race, or an object that went meanwhile: both are looked at again.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                    Ok(()) => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(()) = events.next() => {}
                () = try_again => {}
                changed = behaviour.changed() => if changed.is_err() { return },
            }
        }
    }

    fn changes<K>(&self) -> std::pin::Pin<Box<dyn Stream<Item = ()> + Send>>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    {
        let own = watcher::Config::default().fields(&format!("spec.hostName={}", self.name));
        watcher(Api::<K>::all(self.context.client.clone()), own).default_backoff().map(|_| ()).boxed()
    }

    /// One step for everything that is bound to this host.
    async fn look(&self) -> Result<()> {
        for machine in self.own::<Machine>().await? {
            self.step_machine(&machine).await?;
        }
        for replica in self.own::<Replica>().await? {
            self.step_replica(&replica).await?;
        }
        Ok(())
    }

    async fn own<K>(&self) -> Result<Vec<K>>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let own = ListParams::default().fields(&format!("spec.hostName={}", self.name));
        let list = Api::<K>::all(self.context.client.clone()).list(&own).await;
        Ok(list.map_err(api_error("list what is bound to the host"))?.items)
    }

    fn api<K>(&self, object: &K) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), object.meta().namespace.as_deref().unwrap_or_default())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
