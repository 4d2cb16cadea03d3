//! Making a namespace like its record: the kernel's part. Everything here blocks.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::NetworkConfig;
use super::plan::{Standing, Steps, steps};
use super::record::Record;
use crate::net::command::{CommandError, ip_batch, nft};
use crate::net::dhcp::Lease;
use crate::net::error::{NetworkError, file};
use crate::net::links::{self, Links};
use crate::net::mac::MacAddress;
use crate::net::names::Names;
use crate::net::netns::Netns;
use crate::net::network::{PortSpec, VpcSpec};
use crate::net::rules::{PortRule, VpcRules, vpc_table};
use crate::net::uplink::{slots, transit_pair};
use crate::net::{folder, holder, tap};
use crate::uid::Uid;

/// The gateway's link address, the same on every tap: a guest that keeps it in its ARP cache finds it again after its tap was
/// made again.
const GATEWAY_MAC: MacAddress = MacAddress([0x02, 0xe7, 0x0c, 0, 0, 0x01]);
/// The folder of namespaces in earlier versions; it belongs to `ip netns`.
const LEGACY_FOLDER: &str = "/run/netns";

/// The addresses that guests of a VPC had before this process began, by which its namespace can be found.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub(super) taps: Vec<String>,
    pub(super) slot: Option<u32>,
}

/// The worker on the kernel.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) config: Arc<NetworkConfig>,
    pub(super) names: Names,
}

impl Kernel {
    /// The folder of the namespaces.
    pub(super) fn folder(&self) -> PathBuf {
        self.config.run_dir.join("vpc-netns")
    }

    fn netns_path(&self, uid: &Uid) -> PathBuf {
        self.folder().join(uid)
    }

    /// Paths of this instance's namespaces in the folder that earlier versions used.
    pub(super) fn legacy_namespaces(&self) -> Vec<PathBuf> {
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| self.names.is_legacy_netns(name))
        };
        folder::list(Path::new(LEGACY_FOLDER)).into_iter().filter(is_ours).collect()
    }

    fn legacy_netns_path(&self, uid: &Uid) -> PathBuf {
        Path::new(LEGACY_FOLDER).join(self.names.legacy_netns(uid))
    }

    /// Finds the namespace of a VPC: by its path, by the path that earlier versions used (unless `legacy_is_others`), or by a process that
    /// holds a tap of it. One that was not found at its path is mounted there.
    pub(super) fn find_namespace(
        &self,
        uid: &Uid,
        legacy_is_others: bool,
        held: &Held,
    ) -> Result<Option<Netns>, NetworkError> {
        let path = self.netns_path(uid);
        if let Some(netns) = open_if_present(&path)? {
            return Ok(Some(netns));
        }
        let legacy = if legacy_is_others { None } else { open_if_present(&self.legacy_netns_path(uid))? };
        // A guest still has a namespace that a later mount hides.
        let found = legacy.or_else(|| self.namespace_of_guests(held));
        let Some(netns) = found else { return Ok(None) };
        tracing::info!(vpc = uid.as_str(), from = %netns.path().display(), "takes over a VPC's network namespace");
        folder::prepare(&self.folder())?;
        netns.mount_at(&path)?;
        if !legacy_is_others {
            Netns::remove(&self.legacy_netns_path(uid))?;
        }
        Ok(Some(Netns::open(&path)?))
    }

    /// Finds the namespace that guests hold a tap of. The names of taps are made from a part of a hash, so another VPC may have one of
    /// the same name: a namespace that has a path is its VPC's, and the transit addresses have to be right.
    fn namespace_of_guests(&self, held: &Held) -> Option<Netns> {
        if held.taps.is_empty() {
            return None;
        }
        let paths = folder::list(&self.folder()).into_iter().chain(self.legacy_namespaces());
        let others: Vec<_> = paths.filter_map(|path| Netns::open(&path).ok()).collect();
        let has_slot = |netns: &Netns| {
            let bind = |slot| UdpSocket::bind((transit_pair(self.config.transit, slot).1, 0)).is_ok();
            held.slot.is_none_or(|slot| netns.run(|| bind(slot)).unwrap_or(false))
        };
        let found = holder::namespaces_of_taps(|tap| held.taps.iter().any(|wanted| wanted == tap));
        found.into_iter().find(|netns| !others.iter().any(|other| other.is_same(netns)) && has_slot(netns))
    }

    /// Finds the namespace of a VPC, or makes it.
    fn namespace(&self, uid: &Uid, held: &Held, legacy_is_others: bool) -> Result<Netns, NetworkError> {
        match self.find_namespace(uid, legacy_is_others, held)? {
            Some(netns) => Ok(netns),
            None => {
                folder::prepare(&self.folder())?;
                Ok(Netns::ensure(&self.netns_path(uid))?)
            }
        }
    }

    /// The links of a namespace.
    pub(super) fn links(&self, netns: &Netns) -> Result<Links, NetworkError> {
        netns.run(links::list)?.map_err(file("list the links of", netns.path()))
    }

    /// Makes the namespace like the record, in as few steps as [`steps`] finds.
    pub(super) fn apply(
        &self,
        uid: &Uid,
        record: &Record,
        (legacy_is_others, held): (bool, &Held),
        netns: Option<Arc<Netns>>,
        standing: Option<Standing>,
    ) -> Result<(Arc<Netns>, Standing), NetworkError> {
        let netns = match netns {
            Some(netns) if standing.is_some() => netns,
            Some(netns) => {
                // The path may have been taken away from the namespace that machines live in.
                if !Netns::open(&self.netns_path(uid)).is_ok_and(|named| named.is_same(&netns)) {
                    folder::prepare(&self.folder())?;
                    netns.mount_at(&self.netns_path(uid))?;
                }
                netns
            }
            None => Arc::new(self.namespace(uid, held, legacy_is_others)?),
        };
        let rules = self.rules(record);
        let links = self.links(&netns)?;
        let steps = steps(&self.names, record, &rules, standing.as_ref(), &links);
        let mut taps = standing.map(|standing| standing.taps).unwrap_or_default();
        if !steps.is_empty() {
            self.take(&steps, record, &rules, &netns, &links, &mut taps)?;
        }
        taps.retain(|link, index| links.get(link) == Some(index));
        Ok((netns, Standing { record: record.clone(), rules, taps }))
    }

    fn take(
        &self,
        steps: &Steps,
        record: &Record,
        rules: &str,
        netns: &Netns,
        links: &Links,
        taps: &mut std::collections::BTreeMap<String, u32>,
    ) -> Result<(), NetworkError> {
        if steps.namespace {
            netns.run(set_namespace_defaults)??;
            self.connect_uplink(record, netns, links)?;
            ip_batch(netns, &subnet_script(record))?;
        }
        // Rules are in place before a tap is up.
        if steps.rules {
            nft(netns, rules)?;
        }
        let ports = steps.taps.iter().filter_map(|machine| record.ports.get(machine));
        let mut ports: Vec<_> = ports.map(|port| (self.names.tap(&port.machine_uid), port)).collect();
        while let Err(error) = self.set_up_taps(record, &ports, netns) {
            // A tap goes with its hypervisor, perhaps right now: those that are left are set up.
            let now = self.links(netns)?;
            let before = ports.len();
            ports.retain(|(link, _)| now.get(link) == links.get(link));
            if ports.len() == before {
                return Err(error);
            }
        }
        taps.extend(ports.into_iter().filter_map(|(link, _)| links.get(&link).map(|index| (link, *index))));
        Ok(())
    }

    fn set_up_taps(&self, record: &Record, ports: &[(String, &PortSpec)], netns: &Netns) -> Result<(), NetworkError> {
        netns.run(|| ports.iter().try_for_each(|(link, _)| set_link_defaults(link, true)))??;
        let scripts = ports.iter().map(|(link, port)| tap_script(link, record, port, self.config.mtu));
        Ok(ip_batch(netns, &scripts.collect::<String>())?)
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
            subnet: record.vpc.subnet,
            gateway: record.vpc.gateway,
            ports: ports.collect(),
        })
    }

    /// Returns the DHCP lease of each tap.
    pub(super) fn leases(&self, record: &Record) -> crate::net::dhcp::server::Leases {
        let lease = |port: &PortSpec| Lease {
            mac: port.mac,
            address: port.address,
            subnet: record.vpc.subnet,
            gateway: record.vpc.gateway,
            // Without a way out, guests would only wait for resolvers.
            dns: if record.transit_slot.is_some() { self.config.dns.clone() } else { Vec::new() },
            mtu: self.config.mtu,
            hostname: port.hostname.clone(),
        };
        record.ports.values().map(|port| (self.names.tap(&port.machine_uid), lease(port))).collect()
    }

    /// Makes a machine's tap; it is down.
    pub(super) fn create_tap(&self, netns: &Netns, machine: &str) -> Result<OwnedFd, NetworkError> {
        let link = self.names.tap(machine);
        netns.run(|| tap::create(&link))?.map_err(|source| NetworkError::Tap { link, source })
    }

    /// Removes a link, if it exists.
    pub(super) fn remove_link(&self, netns: &Netns, link: &str) -> Result<(), NetworkError> {
        let exists = || Ok::<_, NetworkError>(self.links(netns)?.contains_key(link));
        if !exists()? {
            return Ok(());
        }
        match ip_batch(netns, &format!("link delete dev {link}\n")) {
            // The hypervisor ended in between.
            Err(CommandError::Refused { .. }) if !exists()? => Ok(()),
            other => Ok(other?),
        }
    }

    /// Removes a VPC's namespace. Sockets and hypervisors may keep it alive after its name was removed, so the links that lead out are
    /// removed first.
    pub(super) fn remove_namespace(&self, uid: &Uid, netns: Option<&Netns>) -> Result<(), NetworkError> {
        let path = self.netns_path(uid);
        let opened = match netns {
            Some(_) => None,
            None => Netns::open(&path).ok(),
        };
        if let Some(netns) = netns.or(opened.as_ref()) {
            self.remove_link(netns, &self.names.inner_uplink(uid))?;
        }
        Ok(Netns::remove(&path)?)
    }

    /// Makes the pair of links to the uplink, or removes one that is not wanted any more.
    fn connect_uplink(&self, record: &Record, netns: &Netns, links: &Links) -> Result<(), NetworkError> {
        let uid = &record.vpc.uid;
        let (inner, outer) = (self.names.inner_uplink(uid), self.names.outer_uplink(uid));
        let has_inner = links.contains_key(&inner);
        let (Some(slot), Some(uplink)) = (record.transit_slot, self.config.uplink.netns()?) else {
            if has_inner {
                ip_batch(netns, &format!("link delete dev {inner}\n"))?;
            }
            return Ok(());
        };
        // The uplink may be another one than at our last start.
        let has_outer = self.links(&uplink)?.contains_key(&outer);
        if has_inner && !has_outer {
            ip_batch(netns, &format!("link delete dev {inner}\n"))?;
        }
        // The other end of an outer link without an inner one is in a namespace that this VPC does not have any more.
        if has_outer && !has_inner {
            ip_batch(&uplink, &format!("link delete dev {outer}\n"))?;
        }
        if !(has_inner && has_outer) {
            // `ip` takes a path for a name when it has a slash; our own descriptor says which namespace without one.
            let uplink_path = format!("/proc/{}/fd/{}", std::process::id(), uplink.as_fd().as_raw_fd());
            ip_batch(netns, &format!("link add {inner} type veth peer name {outer} netns {uplink_path}\n"))?;
        }
        let (outer_address, inner_address) = transit_pair(self.config.transit, slot);
        let mtu = self.config.mtu;
        uplink.run(|| set_link_defaults(&outer, false))??;
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

    /// Finds a pair of transit addresses that is unused on this host and that `claim` can have.
    pub(super) fn free_slot(&self, uid: &Uid, claim: impl Fn(u32) -> bool + Send + Sync) -> Result<u32, NetworkError> {
        let transit = self.config.transit;
        let slots = slots(transit);
        let start = self.names.first_slot(uid);
        let Some(uplink) = self.config.uplink.netns()? else { return Err(NetworkError::TransitFull(transit)) };
        let found = uplink.run(|| {
            // Other instances draw from the same range. An address that can be bound to is in use.
            let is_free = |slot| {
                let (outer, inner) = transit_pair(transit, slot);
                [outer, inner].into_iter().all(|address| UdpSocket::bind((address, 0)).is_err())
            };
            (0..slots).map(|step| start.wrapping_add(step) % slots).find(|slot| is_free(*slot) && claim(*slot))
        })?;
        found.ok_or(NetworkError::TransitFull(transit))
    }

    /// Finds the pair of transit addresses that a namespace has: the one whose inner address can be bound to in it.
    pub(super) fn slot_of(&self, netns: &Netns) -> Result<Option<u32>, NetworkError> {
        let transit = self.config.transit;
        let is_own = |slot: &u32| UdpSocket::bind((transit_pair(transit, *slot).1, 0)).is_ok();
        Ok(netns.run(|| (0..slots(transit)).find(is_own))?)
    }
}

fn open_if_present(path: &Path) -> Result<Option<Netns>, NetworkError> {
    match Netns::open(path) {
        Ok(netns) => Ok(Some(netns)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Routes of the VPC that are not a tap's: no machine has the other addresses of the subnet, so they are unreachable and never reach
/// the uplink. Those of an earlier specification are removed; a removal that follows a replacement cannot fail for want of the route.
fn subnet_script(record: &Record) -> String {
    let VpcSpec { subnet, .. } = record.vpc;
    let mut script = format!("route replace unreachable {subnet}\n");
    for before in record.previous.iter().map(|vpc| vpc.subnet).filter(|before| *before != subnet) {
        script += &format!("route replace unreachable {before}\nroute delete unreachable {before}\n");
    }
    script
}

/// Everything about a tap, for one that is down as for one that is up; up comes last.
fn tap_script(link: &str, record: &Record, port: &PortSpec, mtu: u16) -> String {
    let (gateway, address, mac) = (record.vpc.gateway, port.address, port.mac);
    let mut script = format!(
        "link set dev {link} address {GATEWAY_MAC}\n\
         link set dev {link} mtu {mtu}\n\
         address replace {gateway}/32 dev {link}\n\
         link set dev {link} up\n\
         neigh replace {address} lladdr {mac} nud permanent dev {link}\n\
         route replace {address}/32 dev {link} src {gateway}\n"
    );
    for before in record.previous.iter().map(|vpc| vpc.gateway).filter(|before| *before != gateway) {
        script += &format!("address replace {before}/32 dev {link}\naddress delete {before}/32 dev {link}\n");
    }
    script
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

/// Settings of a tap or of one end of the uplink's pair. `neigh/default` does not exist in namespaces other than the first, so the
/// delay of proxy ARP is set here.
fn set_link_defaults(link: &str, is_tap: bool) -> Result<(), NetworkError> {
    set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1", true)?;
    set(&format!("net/ipv4/neigh/{link}/proxy_delay"), "0", false)?;
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
