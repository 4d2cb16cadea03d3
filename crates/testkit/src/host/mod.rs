//! A host without hardware: an agent that answers for guests, disks and containers that are not there.
//!
//! It speaks to the API as the real agent does, as `system:node:<name>`, one status write a step, so that everybody sees the
//! states in between. It keeps book of what it runs: two machines on one volume, two with one address, or more memory than there is
//! are noted as [`SimHost::violations`], which every story expects to be empty.

mod machine;
mod replica;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evroc_api::compute::{DiskImage, DiskImageSpec};
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Capacity, Host, HostSpec, HostStatus, Machine, Replica, Volume};
use evroc_api::units::{Size, Unit};
use evroc_controller::{Context, Result, api_error, create_or_adopt, get, write_status};
use futures::{Stream, StreamExt};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::platform::IMAGE;

/// What a host has.
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
    /// Neither reads nor writes: the agent is gone.
    pub is_silent: bool,
    /// Says of itself that it is not ready.
    pub is_unready: bool,
    /// Images that are not on the host: volumes of them fail.
    pub missing_images: BTreeSet<String>,
    /// Volumes are never made.
    pub volumes_never_ready: bool,
    /// Deleted volumes never go.
    pub volumes_never_go: bool,
    /// Machines cannot be started, for this reason.
    pub start_failure: Option<String>,
    /// Machines stay `Starting`.
    pub machines_never_run: bool,
    /// Guests never come up.
    pub guests_never_ready: bool,
    /// Guests do not power off when asked.
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
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

/// What a host runs, and what went wrong.
#[derive(Debug, Default)]
struct Book {
    /// Machines that run, by uid: namespace and name, volumes, address.
    machines: BTreeMap<String, RunningMachine>,
    /// Containers that run, by uid.
    replicas: BTreeMap<String, String>,
    /// Machines whose guest was told to power itself off.
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
        let agent = Agent {
            name: name.into(),
            zone: zone.into(),
            size,
            context,
            behaviour: Behaviour::default(),
            book: Arc::clone(&book),
        };
        let task = tokio::spawn(agent.run(behaviour.subscribe()));
        Self { name: name.into(), behaviour, book, task }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has it behave otherwise from now on.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        self.behaviour.send_modify(change);
    }

    /// Has the guest of a virtual machine power itself off.
    pub fn power_off(&self, machine: &str) {
        self.book().powered_off.insert(machine.into());
        self.behaviour.send_modify(|_| ());
    }

    /// The machines that it runs now, by name.
    pub fn machines(&self) -> Vec<String> {
        self.book().machines.values().map(|m| m.name.clone()).collect()
    }

    /// The containers that it runs now, by name.
    pub fn replicas(&self) -> Vec<String> {
        self.book().replicas.values().cloned().collect()
    }

    /// Everything that it has ever started, in order: `Machine/name` or `Replica/name`.
    pub fn starts(&self) -> Vec<String> {
        self.book().starts.clone()
    }

    /// What should never have been asked of it.
    pub fn violations(&self) -> Vec<String> {
        self.book().violations.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task behind a host.
struct Agent {
    name: String,
    zone: String,
    size: HostSize,
    context: Context,
    behaviour: Behaviour,
    book: Arc<Mutex<Book>>,
}

impl Agent {
    async fn run(mut self, mut behaviour: watch::Receiver<Behaviour>) {
        let mut events = futures::stream::select_all([
            self.changes::<Volume>(),
            self.changes::<Machine>(),
            self.changes::<Replica>(),
        ]);
        loop {
            self.behaviour = behaviour.borrow_and_update().clone();
            let outcome = if self.behaviour.is_silent { Ok(()) } else { self.look().await };
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
        self.report_host().await?;
        self.publish_image().await?;
        for volume in self.own::<Volume>().await? {
            self.step_volume(&volume).await?;
        }
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

    async fn report_host(&self) -> Result<()> {
        let hosts = Api::<Host>::all(self.context.client.clone());
        let host = match get(&hosts, &self.name).await? {
            Some(host) => host,
            None => {
                let host = Host::new(&self.name, HostSpec { zone: Some(self.zone.clone()), ..HostSpec::default() });
                let manager = PatchParams::apply("evroc-node");
                hosts.patch(&self.name, &manager, &Patch::Apply(&host)).await.map_err(api_error("create the host"))?
            }
        };
        let mut status: HostStatus = host.status.clone().unwrap_or_default();
        let capacity = Capacity {
            cpus: self.size.cpus,
            memory_bytes: self.size.memory_gb << 30,
            disk_bytes: self.size.disk_gb << 30,
        };
        status.accelerator = Some("tcg".into());
        status.allocatable = Some(capacity.clone());
        status.capacity = Some(capacity);
        let verdict = match self.behaviour.is_unready {
            false => Verdict::yes("Ready", "the host's agent is at work"),
            true => Verdict::no("CannotMeasure", "planted by a test"),
        };
        conditions::set(&mut status.conditions, READY, &verdict, None, self.context.now());
        write_status(&hosts, &host, &status).await.map(|_| ())
    }

    async fn publish_image(&self) -> Result<()> {
        let images = Api::<DiskImage>::all(self.context.client.clone());
        if get(&images, IMAGE).await?.is_some() {
            return Ok(());
        }
        let spec = DiskImageSpec {
            default_size: Size { amount: 2, unit: Unit::GB },
            minimum_size_bytes: 1 << 30,
            os_arch: "amd64".into(),
            os_image: "tiny".into(),
            os_version: "1".into(),
            version: "0.1".into(),
            sha256: "00".repeat(32),
        };
        create_or_adopt(&images, &DiskImage::new(IMAGE, spec)).await
    }
}
