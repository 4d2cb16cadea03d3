//! Making a namespace like its record: the kernel's part.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;

use super::{HostNetwork, NetworkError, PortSpec, Record, VpcSpec};
use crate::net::command::{ip_batch, nft};
use crate::net::dhcp::Lease;
use crate::net::error::file;
use crate::net::mac::MacAddress;
use crate::net::names;
use crate::net::netns::Netns;
use crate::net::rules::{PortRule, VpcRules, vpc_table};
use crate::net::tap;
use crate::net::uplink::{slots, transit_pair};

/// The gateway's link address, the same on every tap: a guest that keeps it in its ARP cache finds it again after its tap was
/// made anew.
const GATEWAY_MAC: MacAddress = MacAddress([0x02, 0xe7, 0x0c, 0, 0, 0x01]);

impl HostNetwork {
    /// The kernel's part of [`Self::converge`]; gives the namespace and the rules that stand in it now.
    pub(super) fn apply(
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

    pub(super) fn lease(&self, record: &Record, port: &PortSpec) -> Lease {
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

    pub(super) fn free_slot(&self, uid: &str, taken: &[u32]) -> Result<u32, NetworkError> {
        let transit = self.config.transit;
        let slots = slots(transit);
        let start = names::hex(&format!("{}/{uid}", self.config.instance), 8);
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
