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

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::command::{CommandError, ip_batch, nft};
use super::dhcp::Lease;
use super::dhcp::server::DhcpServer;
use super::mac::MacAddress;
use super::names::Names;
use super::netns::{Netns, NetnsError};
use super::rules::{PortRule, VpcRules, host_table, remove_table, vpc_table};
use super::tap;
use super::uplink::{Uplink, allow_forwarding, restore_forwarding, slots, transit_pair};
use crate::dial::Dialer;
use crate::shim::boot_id;

/// The gateway's link address, the same on every tap: a guest that keeps it in its ARP cache finds it again after its tap was
/// made anew.
const GATEWAY_MAC: MacAddress = MacAddress([0x02, 0xe7, 0x0c, 0, 0, 0x01]);

/// A failed change of the host's network.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NetworkError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("create tap {link}")]
    Tap {
        link: String,
        #[source]
        source: io::Error,
    },
    #[error("start the DHCP server of VPC {vpc}")]
    Dhcp {
        vpc: String,
        #[source]
        source: io::Error,
    },
    #[error("VPC {vpc} has no port for machine {machine}: call ensure_port first")]
    UnknownPort { vpc: String, machine: String },
    #[error("the transit range {0} is used up: widen it")]
    TransitFull(Ipv4Net),
}

/// What all VPCs of an instance have in common.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The instance.
    pub instance: String,
    /// `/run/<instance>`.
    pub run_dir: PathBuf,
    /// The node's state: `/var/lib/<instance>/node`.
    pub state_dir: PathBuf,
    /// The way out.
    pub uplink: Uplink,
    /// Addresses for the links between VPCs and uplink: a range that nobody else uses (`198.18.0.0/15` is set aside for tests of
    /// network devices by RFC 2544, so no real network has it).
    pub transit: Ipv4Net,
    /// Resolvers that guests are told (see [`super::resolvers`]); without a way out they are told none.
    pub dns: Vec<Ipv4Addr>,
    /// Largest packet that guests send.
    pub mtu: u16,
}

impl NetworkConfig {
    /// The usual values; the way out is none.
    pub fn new(instance: &str, run_dir: &Path, state_dir: &Path) -> Self {
        Self {
            instance: instance.to_owned(),
            run_dir: run_dir.to_owned(),
            state_dir: state_dir.to_owned(),
            uplink: Uplink::None,
            transit: Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
            dns: super::resolvers::of_this_host(),
            mtu: 1500,
        }
    }
}

/// A VPC, as a machine on this host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpcSpec {
    /// The VPC's uid.
    pub uid: String,
    /// Its addresses.
    pub subnet: Ipv4Net,
    /// The gateway's among them.
    pub gateway: Ipv4Addr,
}

/// A machine's place in its VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The machine's uid.
    pub machine_uid: String,
    /// Its link address.
    pub mac: MacAddress,
    /// Its address.
    pub address: Ipv4Addr,
    /// The name that DHCP tells it.
    pub hostname: String,
}

/// What is wanted of a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    vpc: VpcSpec,
    /// By the machine's uid.
    ports: BTreeMap<String, PortSpec>,
    /// Which pair of the transit range it has.
    transit_slot: Option<u32>,
}

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
        let name = link.clone();
        let fd = blocking(move || {
            netns.run(|| tap::create(&name))?.map_err(|source| NetworkError::Tap { link: name.clone(), source })
        })
        .await?;
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
            let record = this.forwarding_record();
            if record.exists() {
                nft(&Netns::current()?, &remove_table(this.names.table()))?;
                let boot = boot_id().map_err(file("read", Path::new("boot_id")))?;
                restore_forwarding(&record, boot).map_err(file("put back what is recorded in", &record))?;
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
            let record = this.forwarding_record();
            let boot = boot_id().map_err(file("read", Path::new("boot_id")))?;
            // Rules first: nothing is forwarded before they say what.
            let pattern = this.names.outer_uplink_pattern();
            nft(&Netns::current()?, &host_table(this.names.table(), &pattern, this.config.transit))?;
            allow_forwarding(&record, boot).map_err(file("allow forwarding and record it in", &record))
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

    /// The kernel's part of [`Self::converge`]; gives the namespace and the rules that stand in it now.
    fn apply(
        &self,
        record: &Record,
        before: Option<(Arc<Netns>, String)>,
    ) -> Result<(Arc<Netns>, String), NetworkError> {
        let vpc = &record.vpc;
        let (netns, standing) = match before {
            Some((netns, rules)) => (netns, Some(rules)),
            None => (Arc::new(Netns::ensure(&self.netns_path(&vpc.uid))?), None),
        };
        if standing.is_none() {
            netns.run(set_namespace_defaults)??;
            self.connect_uplink(record, &netns)?;
            // Nobody has this address: what is not a machine's is unreachable, and no business of the uplink.
            ip_batch(&netns, &format!("route replace unreachable {}\n", vpc.subnet.trunc()))?;
        }
        let rules = self.rules(record);
        if standing.as_ref() != Some(&rules) {
            nft(&netns, &rules)?;
        }
        let mut script = String::new();
        netns.run(|| -> Result<(), NetworkError> {
            for port in record.ports.values() {
                let link = self.names.tap(&port.machine_uid);
                let path = Path::new("/proc/thread-self/net/dev");
                if tap::link_exists(&link).map_err(file("read", path))? {
                    set_link_defaults(&link)?;
                    script.push_str(&tap_script(&link, vpc, port, self.config.mtu));
                }
            }
            Ok(())
        })??;
        ip_batch(&netns, &script)?;
        Ok((netns, rules))
    }

    fn rules(&self, record: &Record) -> String {
        let uplink = self.names.inner_uplink(&record.vpc.uid);
        let ports = record.ports.values().map(|port| PortRule {
            link: self.names.tap(&port.machine_uid),
            mac: port.mac,
            address: port.address,
        });
        vpc_table(&VpcRules {
            table: self.names.table(),
            tap_pattern: &self.names.tap_pattern(),
            uplink: record.transit_slot.map(|_| uplink.as_str()),
            subnet: record.vpc.subnet.trunc(),
            gateway: record.vpc.gateway,
            ports: ports.collect(),
        })
    }

    fn lease(&self, record: &Record, port: &PortSpec) -> Lease {
        Lease {
            mac: port.mac,
            address: port.address,
            subnet: record.vpc.subnet,
            gateway: record.vpc.gateway,
            // Without a way out they would only be waited for.
            dns: if record.transit_slot.is_some() { self.config.dns.clone() } else { Vec::new() },
            mtu: self.config.mtu,
            hostname: port.hostname.clone(),
        }
    }

    /// Makes the pair of links to the uplink, or removes one that is not wanted any more.
    fn connect_uplink(&self, record: &Record, netns: &Netns) -> Result<(), NetworkError> {
        let uid = &record.vpc.uid;
        let (inner, outer) = (self.names.inner_uplink(uid), self.names.outer_uplink(uid));
        let exists = || netns.run(|| tap::link_exists(&inner)).map(|found| found.unwrap_or(false));
        let (Some(slot), Some(uplink)) = (record.transit_slot, self.config.uplink.netns()?) else {
            if exists()? {
                ip_batch(netns, &format!("link delete dev {inner}\n"))?;
            }
            return Ok(());
        };
        // The uplink may be another one than at our last start.
        let is_there = uplink.run(|| tap::link_exists(&outer))?.unwrap_or(false);
        if exists()? && !is_there {
            ip_batch(netns, &format!("link delete dev {inner}\n"))?;
        }
        if !is_there {
            // `ip` takes a path for a name when it has a slash; our own descriptor says which namespace without one.
            let uplink_path = format!("/proc/{}/fd/{}", std::process::id(), uplink.as_fd().as_raw_fd());
            ip_batch(netns, &format!("link add {inner} type veth peer name {outer} netns {uplink_path}\n"))?;
        }
        let (outer_address, inner_address) = transit_pair(self.config.transit, slot);
        let mtu = self.config.mtu;
        uplink.run(|| set_link_defaults(&outer))??;
        ip_batch(
            &uplink,
            &format!(
                "address replace {outer_address}/31 dev {outer}\nlink set dev {outer} mtu {mtu}\nlink set dev {outer} up\n"
            ),
        )?;
        ip_batch(
            netns,
            &format!(
                "address replace {inner_address}/31 dev {inner}\nlink set dev {inner} mtu {mtu}\nlink set dev {inner} up\n\
                 route replace default via {outer_address} dev {inner}\n"
            ),
        )?;
        Ok(())
    }

    fn free_slot(&self, uid: &str, taken: &[u32]) -> Result<u32, NetworkError> {
        let transit = self.config.transit;
        let slots = slots(transit);
        let start = super::names::hex(&format!("{}/{uid}", self.config.instance), 8);
        let start = u32::from_str_radix(&start, 16).unwrap_or(0);
        let Some(uplink) = self.config.uplink.netns()? else { return Err(NetworkError::TransitFull(transit)) };
        let found = uplink.run(|| {
            // Other instances draw from the same range. An address that can be bound to is somebody's.
            let is_free = |slot| {
                let (outer, inner) = transit_pair(transit, slot);
                [outer, inner].into_iter().all(|address| UdpSocket::bind((address, 0)).is_err())
            };
            let mut all = (0..slots).map(|step| start.wrapping_add(step) % slots);
            all.find(|slot| !taken.contains(slot) && is_free(*slot))
        })?;
        found.ok_or(NetworkError::TransitFull(transit))
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

    fn forwarding_record(&self) -> PathBuf {
        self.config.state_dir.join("ip_forward.json")
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

/// Everything about a tap, for one that is down as for one that is up; up comes last.
fn tap_script(link: &str, vpc: &VpcSpec, port: &PortSpec, mtu: u16) -> String {
    let (gateway, address, mac) = (vpc.gateway, port.address, port.mac);
    format!(
        "link set dev {link} address {GATEWAY_MAC}\n\
         link set dev {link} mtu {mtu}\n\
         address replace {gateway}/32 dev {link}\n\
         link set dev {link} up\n\
         neigh replace {address} lladdr {mac} nud permanent dev {link}\n\
         route replace {address}/32 dev {link} src {gateway}\n"
    )
}

/// Settings of a whole namespace, made before any link is in it.
fn set_namespace_defaults() -> Result<(), NetworkError> {
    set("net/ipv6/conf/all/disable_ipv6", "1", true)?;
    set("net/ipv6/conf/default/disable_ipv6", "1", true)?;
    set("net/ipv4/conf/all/rp_filter", "1", false)?;
    set("net/ipv4/conf/default/rp_filter", "1", false)?;
    set("net/ipv4/conf/all/send_redirects", "0", false)?;
    set("net/ipv4/conf/default/send_redirects", "0", false)?;
    set("net/ipv4/conf/all/accept_redirects", "0", false)?;
    set("net/ipv4/ip_forward", "1", false)
}

/// Settings of a tap or of an end of the way out. `neigh/default` does not exist in namespaces other than the first, so the delay of
/// proxy ARP is set here.
fn set_link_defaults(link: &str) -> Result<(), NetworkError> {
    set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1", true)?;
    set(&format!("net/ipv4/neigh/{link}/proxy_delay"), "0", false)?;
    let is_tap = link.as_bytes().get(5) == Some(&b't');
    if is_tap { set(&format!("net/ipv4/conf/{link}/proxy_arp"), "1", false) } else { Ok(()) }
}

/// Sets a value in the calling thread's namespace. `is_optional`: kernels without IPv6 are fine.
fn set(key: &str, value: &str, is_optional: bool) -> Result<(), NetworkError> {
    let path = Path::new("/proc/sys").join(key);
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_optional => Ok(()),
        other => other.map_err(file("set", &path)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> NetworkError + use<> {
    let path = path.to_owned();
    move |source| NetworkError::File { operation, path: path.clone(), source }
}
