//! Private addresses: which one a virtual machine has, which are free, and what follows from the subnet. Pure.

use std::net::Ipv4Addr;

use evroc_api::infra::MachineNetwork;
use ipnet::Ipv4Net;
use kube::ResourceExt;

use super::observe::Observed;

/// How many addresses at the start of a subnet are the platform's: the network's own, the gateway's and the system's.
const RESERVED: u32 = 3;
/// The prefix lengths that leave room for virtual machines and for the arithmetic.
const PREFIX_LENGTHS: std::ops::RangeInclusive<u8> = 8..=30;

/// The lowest address that no other virtual machine of the group has.
pub(super) fn free_address(observed: &Observed) -> Option<Ipv4Addr> {
    let subnet = subnet(observed)?;
    let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
    (first + RESERVED..last).map(Ipv4Addr::from).find(|address| !observed.taken_addresses.contains(address))
}

/// The machine's place in the subnet.
pub(super) fn network(observed: &Observed, address: Ipv4Addr) -> Option<MachineNetwork> {
    let subnet = subnet(observed)?;
    Some(MachineNetwork {
        vpc_uid: observed.vpc.as_ref().and_then(ResourceExt::uid).unwrap_or_default(),
        address: address.to_string(),
        prefix_length: subnet.prefix_len(),
        gateway: Ipv4Addr::from(u32::from(subnet.network()) + 1).to_string(),
        mac: link_address(&observed.vm.uid().unwrap_or_default()),
    })
}

/// The subnet of the resource group, without host bits.
fn subnet(observed: &Observed) -> Option<Ipv4Net> {
    let subnet: Ipv4Net = observed.subnet.as_ref()?.spec.ipv4_cidr_block.block.parse().ok()?;
    PREFIX_LENGTHS.contains(&subnet.prefix_len()).then(|| subnet.trunc())
}

/// A locally administered link address that follows from the virtual machine's uid, so that it outlives every restart.
fn link_address(uid: &str) -> String {
    let hex: String = uid.chars().filter(char::is_ascii_hexdigit).chain("0000000000".chars()).take(10).collect();
    let pairs: Vec<&str> = (0..5).map(|i| &hex[2 * i..2 * i + 2]).collect();
    format!("0a:{}", pairs.join(":"))
}
