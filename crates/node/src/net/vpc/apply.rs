//! Makes a namespace like its record. Everything here blocks.

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use super::kernel::{Held, Kernel};
use super::plan::{Standing, Steps, steps};
use super::record::Record;
use super::settings::{set_link_defaults, set_namespace_defaults};
use crate::net::command::{CommandError, ip_batch, nft};
use crate::net::dhcp::Lease;
use crate::net::error::NetworkError;
use crate::net::links::Links;
use crate::net::mac::MacAddress;
use crate::net::netns::Netns;
use crate::net::network::{PortSpec, VpcSpec};
use crate::net::rules::{PortRule, VpcRules, vpc_table};
use crate::net::uplink::{slots, transit_pair};
use crate::net::{folder, tap};
use crate::uid::Uid;

/// The gateway's link address, the same on every tap: a guest that keeps it in its ARP cache finds it again after its tap was
/// made again.
const GATEWAY_MAC: MacAddress = MacAddress([0x02, 0xe7, 0x0c, 0, 0, 0x01]);

impl Kernel {
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
