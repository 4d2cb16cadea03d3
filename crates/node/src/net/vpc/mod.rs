//! VPCs on this host: a network namespace each, with a tap per machine.
//!
//! ```text
//!  machine ─ tap ┐                 10.0.0.1/32 and proxy ARP on every tap, a /32 route to its machine
//!  machine ─ tap ┼─ routed, inet table ─ pair of links ─► uplink (or no way out)
//!  machine ─ tap ┘  DHCP server
//! ```
//! What is wanted of a VPC is kept as a record in `/run/<instance>/vpcs/<vpc>.json`, written before the kernel is touched. So every
//! call does the same: change the record, then make the namespace like it; and an agent that starts again ([`HostNetwork::resume`])
//! knows all ports at once and never renders rules with half of the machines.
//!
//! A tap lives by its descriptor, which the hypervisor has: it is there for as long as the machine runs, whatever happens to us.
//! Rules are in place before a tap is up.

mod apply;
mod config;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::command::{ip_batch, nft};
use super::dhcp::server::DhcpServer;
use super::error::file;
use super::names::Names;
use super::netns::Netns;
use super::network::{Network, TapState};
use super::rules::{host_table, remove_table};
use super::tap;
use super::uplink::{Uplink, allow_forwarding, restore_forwarding, uses_forwarding};
use crate::dial::Dialer;
use crate::io::BoxDuplex;
use crate::shim::boot_id;

pub use self::config::NetworkConfig;
use self::config::Record;
pub use super::error::NetworkError;
pub use super::network::{PortSpec, VpcSpec};

/// How long a tap may be busy that should be free: a hypervisor that is ending, or a child of ours between fork and exec, which has a
/// copy of every descriptor for a moment.
const BUSY_DEADLINE: Duration = Duration::from_millis(500);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What this process keeps of a VPC.
struct Running {
    netns: Arc<Netns>,
    dhcp: DhcpServer,
    record: Record,
    /// The rules that stand in the kernel.
    rules: String,
}

/// The VPCs of this host. Cheap to clone.
#[derive(Clone)]
pub struct HostNetwork {
    config: Arc<NetworkConfig>,
    names: Names,
    dialer: Dialer,
    /// One change at a time: they are rare and take milliseconds.
    vpcs: Arc<Mutex<BTreeMap<String, Running>>>,
}

impl HostNetwork {
    /// Takes up what an earlier agent left: the namespaces that have a record are made right and served; those without are removed.
    pub async fn resume(config: NetworkConfig, dialer: Dialer) -> Result<Self, NetworkError> {
        let this = Self { names: Names::new(&config.instance), config: Arc::new(config), dialer, vpcs: Arc::default() };
        let folder = this.records();
        for path in [&folder, &this.config.state_dir, Path::new("/run/netns")] {
            fs::create_dir_all(path).map_err(file("create folder", path))?;
        }
        this.prepare_uplink().await?;
        let mut known = Vec::new();
        for entry in fs::read_dir(&folder).map_err(file("list folder", &folder))?.flatten() {
            let bytes = fs::read(entry.path()).map_err(file("read", &entry.path()))?;
            match serde_json::from_slice::<Record>(&bytes) {
                Ok(record) => {
                    known.push(this.names.netns(&record.vpc.uid));
                    let mut vpcs = this.vpcs.lock().await;
                    this.converge(&mut vpcs, record).await?;
                }
                // Written by an atomic rename, so this is another version's or somebody's doing.
                Err(error) => tracing::warn!(path = %entry.path().display(), %error, "a VPC's record makes no sense"),
            }
        }
        for name in this.namespaces() {
            if !known.contains(&name) {
                Netns::remove(&Path::new("/run/netns").join(name))?;
            }
        }
        Ok(this)
    }

    /// Makes the VPC and the machine's place in it like this. Call before starting the machine, and again for one that runs: then
    /// only what differs is changed.
    pub async fn ensure_port(&self, vpc: &VpcSpec, port: &PortSpec) -> Result<(), NetworkError> {
        let mut vpcs = self.vpcs.lock().await;
        let mut record = match vpcs.get(&vpc.uid) {
            Some(running) => running.record.clone(),
            None => Record { vpc: vpc.clone(), ports: BTreeMap::new(), transit_slot: None },
        };
        record.vpc = vpc.clone();
        record.ports.insert(port.machine_uid.clone(), port.clone());
        self.converge(&mut vpcs, record).await
    }

    /// Makes the machine's tap and sets it up; the descriptor is for the hypervisor. Fails with a busy tap while one runs.
    pub async fn open_tap(&self, vpc_uid: &str, machine_uid: &str) -> Result<OwnedFd, NetworkError> {
        let mut vpcs = self.vpcs.lock().await;
        let unknown = || NetworkError::UnknownPort { vpc: vpc_uid.into(), machine: machine_uid.into() };
        let running = vpcs.get(vpc_uid).ok_or_else(unknown)?;
        let (netns, record) = (running.netns.clone(), running.record.clone());
        if !record.ports.contains_key(machine_uid) {
            return Err(unknown());
        }
        let link = self.names.tap(machine_uid);
        let deadline = tokio::time::Instant::now() + BUSY_DEADLINE;
        let fd = loop {
            let (netns, name) = (netns.clone(), link.clone());
            let created = blocking(move || Ok(netns.run(|| tap::create(&name))?)).await?;
            match created {
                Err(source) if is_busy(&source) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                other => break other.map_err(|source| NetworkError::Tap { link, source })?,
            }
        };
        // The tap is down: now the namespace is made right with it, and it comes up last.
        self.converge(&mut vpcs, record).await?;
        Ok(fd)
    }

    /// Takes the machine's place away. Its tap is gone when its hypervisor is. The VPC stays for others, and goes with the last port.
    pub async fn remove_port(&self, vpc_uid: &str, machine_uid: &str) -> Result<(), NetworkError> {
        let mut vpcs = self.vpcs.lock().await;
        let Some(running) = vpcs.get(vpc_uid) else { return Ok(()) };
        let mut record = running.record.clone();
        record.ports.remove(machine_uid);
        if record.ports.is_empty() {
            return self.remove(&mut vpcs, vpc_uid).await;
        }
        let (netns, link) = (running.netns.clone(), self.names.tap(machine_uid));
        // A hypervisor that is still ending must not keep the link.
        blocking(move || {
            if netns.run(|| tap::link_exists(&link))?.unwrap_or(false) {
                ip_batch(&netns, &format!("link delete dev {link}\n"))?;
            }
            Ok(())
        })
        .await?;
        self.converge(&mut vpcs, record).await
    }

    /// Removes a VPC from this host with all that is in it.
    pub async fn remove_vpc(&self, vpc_uid: &str) -> Result<(), NetworkError> {
        let mut vpcs = self.vpcs.lock().await;
        self.remove(&mut vpcs, vpc_uid).await
    }

    /// Uids of the machines that have a port here, by the uid of their VPC.
    pub async fn ports(&self) -> BTreeMap<String, Vec<String>> {
        let vpcs = self.vpcs.lock().await;
        vpcs.iter().map(|(uid, running)| (uid.clone(), running.record.ports.keys().cloned().collect())).collect()
    }

    /// Opens a TCP connection into a VPC, from its gateway's address. Set a deadline.
    pub async fn connect(&self, vpc_uid: &str, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let netns = self.vpcs.lock().await.get(vpc_uid).map(|running| running.netns.clone());
        let netns = netns
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("VPC {vpc_uid} is not on this host")))?;
        self.dialer.connect(&netns, address).await
    }

    /// Removes every VPC, and puts the host's settings back. For the end of the instance, when no machine runs any more.
    pub async fn remove_all(&self) -> Result<(), NetworkError> {
        let mut vpcs = self.vpcs.lock().await;
        for uid in vpcs.keys().cloned().collect::<Vec<_>>() {
            self.remove(&mut vpcs, &uid).await?;
        }
        for name in self.namespaces() {
            Netns::remove(&Path::new("/run/netns").join(name))?;
        }
        self.restore_host().await?;
        let folder = self.records();
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", &folder)(error)),
            _ => Ok(()),
        }
    }

    /// Takes back what a way out through the host needed.
    async fn restore_host(&self) -> Result<(), NetworkError> {
        let this = self.clone();
        blocking(move || {
            let failed = file("put back", Path::new("ip_forward"));
            let instance = &this.config.instance;
            if uses_forwarding(instance).map_err(&failed)? {
                nft(&Netns::current()?, &remove_table(this.names.table()))?;
                let boot = boot_id().map_err(file("read", Path::new("boot_id")))?;
                restore_forwarding(instance, boot).map_err(&failed)?;
            }
            Ok(())
        })
        .await
    }

    async fn prepare_uplink(&self) -> Result<(), NetworkError> {
        if self.config.uplink != Uplink::Host {
            return self.restore_host().await;
        }
        let this = self.clone();
        blocking(move || {
            let boot = boot_id().map_err(file("read", Path::new("boot_id")))?;
            // Rules first: nothing is forwarded before they say what.
            let pattern = this.names.outer_uplink_pattern();
            nft(&Netns::current()?, &host_table(this.names.table(), &pattern, this.config.transit))?;
            allow_forwarding(&this.config.instance, boot).map_err(file("allow", Path::new("ip_forward")))
        })
        .await
    }

    /// Makes the namespace like the record, and keeps the record. The one path that creates and repairs.
    async fn converge(&self, vpcs: &mut BTreeMap<String, Running>, mut record: Record) -> Result<(), NetworkError> {
        let uid = record.vpc.uid.clone();
        if record.transit_slot.is_none() && self.config.uplink != Uplink::None {
            let taken: Vec<_> = vpcs.values().filter_map(|running| running.record.transit_slot).collect();
            record.transit_slot = Some(self.free_slot(&uid, &taken)?);
        }
        self.keep(&record)?;
        let before = vpcs.get(&uid).map(|running| (running.netns.clone(), running.rules.clone()));
        let (this, wanted) = (self.clone(), record.clone());
        let (netns, rules) = blocking(move || this.apply(&wanted, before)).await?;
        let leases = record.ports.values().map(|port| (self.names.tap(&port.machine_uid), self.lease(&record, port)));
        let leases = leases.collect();
        match vpcs.get_mut(&uid) {
            Some(running) => {
                running.dhcp.set_leases(leases);
                running.rules = rules;
                running.record = record;
            }
            None => {
                let dhcp =
                    DhcpServer::start(&netns).map_err(|source| NetworkError::Dhcp { vpc: uid.clone(), source })?;
                dhcp.set_leases(leases);
                vpcs.insert(uid, Running { netns, dhcp, record, rules });
            }
        }
        Ok(())
    }

    async fn remove(&self, vpcs: &mut BTreeMap<String, Running>, uid: &str) -> Result<(), NetworkError> {
        let running = vpcs.remove(uid);
        let (this, uid) = (self.clone(), uid.to_owned());
        blocking(move || {
            let path = this.netns_path(&uid);
            // Sockets and hypervisors may keep the namespace alive after its name is gone: the links to the outside must not wait.
            let netns = match &running {
                Some(running) => Some(running.netns.clone()),
                None => Netns::open(&path).ok().map(Arc::new),
            };
            if let Some(netns) = netns {
                let inner = this.names.inner_uplink(&uid);
                if netns.run(|| tap::link_exists(&inner))?.unwrap_or(false) {
                    ip_batch(&netns, &format!("link delete dev {inner}\n"))?;
                }
            }
            drop(running);
            Netns::remove(&path)?;
            let record = this.record_path(&uid);
            match fs::remove_file(&record) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", &record)(error)),
                _ => Ok(()),
            }
        })
        .await
    }

    fn keep(&self, record: &Record) -> Result<(), NetworkError> {
        let path = self.record_path(&record.vpc.uid);
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        if fs::read(&path).is_ok_and(|standing| standing == bytes) {
            return Ok(());
        }
        // A dot: not to be taken for a record.
        let temporary = self.config.run_dir.join(".vpc.new");
        fs::write(&temporary, bytes).map_err(file("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(file("rename to", &path))
    }

    fn records(&self) -> PathBuf {
        self.config.run_dir.join("vpcs")
    }

    fn record_path(&self, uid: &str) -> PathBuf {
        self.records().join(format!("{}.json", self.names.netns(uid)))
    }

    fn netns_path(&self, uid: &str) -> PathBuf {
        Path::new("/run/netns").join(self.names.netns(uid))
    }

    /// Names of this instance's namespaces on this host.
    fn namespaces(&self) -> Vec<String> {
        let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&self.names.netns_prefix())).collect()
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    crate::io::blocking(work).await
}

#[async_trait]
impl Network for HostNetwork {
    async fn ensure_port(&self, vpc: &VpcSpec, port: &PortSpec) -> Result<TapState, NetworkError> {
        Self::ensure_port(self, vpc, port).await?;
        let link = self.names.tap(&port.machine_uid);
        let Some(netns) = self.vpcs.lock().await.get(&vpc.uid).map(|running| running.netns.clone()) else {
            return Ok(TapState::Absent);
        };
        let read = file("read", Path::new("/proc/thread-self/net/dev"));
        let exists = blocking(move || netns.run(|| tap::link_exists(&link))?.map_err(read)).await?;
        Ok(if exists { TapState::Present } else { TapState::Absent })
    }

    async fn open_tap(&self, vpc_uid: &str, machine_uid: &str) -> Result<OwnedFd, NetworkError> {
        Self::open_tap(self, vpc_uid, machine_uid).await
    }

    async fn remove_port(&self, vpc_uid: &str, machine_uid: &str) -> Result<(), NetworkError> {
        Self::remove_port(self, vpc_uid, machine_uid).await
    }

    async fn ports(&self) -> BTreeMap<String, Vec<String>> {
        Self::ports(self).await
    }

    async fn connect(&self, vpc_uid: &str, address: SocketAddr) -> io::Result<BoxDuplex> {
        Ok(Box::new(Self::connect(self, vpc_uid, address).await?))
    }

    async fn remove_all(&self) -> Result<(), NetworkError> {
        Self::remove_all(self).await
    }
}
