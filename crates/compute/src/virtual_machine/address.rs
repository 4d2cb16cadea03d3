//! Private addresses: which one a virtual machine has, which are free, and what follows from the subnet. Pure.

use std::net::Ipv4Addr;

use evroc_api::infra::MachineNetwork;
use evroc_api::subnet_range::SubnetRange;
use kube::ResourceExt;

use super::observe::{Observed, address};

/// The address that the virtual machine has, unless its subnet was made again with other addresses.
pub(super) fn kept_address(observed: &Observed) -> Option<Ipv4Addr> {
    let subnet = subnet(observed)?;
    address(&observed.vm).filter(|address| subnet.is_usable(*address))
}

/// The lowest address that no other virtual machine of the group has.
pub(super) fn free_address(observed: &Observed) -> Option<Ipv4Addr> {
    subnet(observed)?.usable().find(|address| !observed.taken_addresses.contains(address))
}

/// The machine's place in the subnet.
pub(super) fn network(observed: &Observed, address: Ipv4Addr) -> Option<MachineNetwork> {
    let subnet = subnet(observed)?;
    Some(MachineNetwork {
        vpc_uid: observed.vpc.as_ref().and_then(ResourceExt::uid).unwrap_or_default(),
        address: address.to_string(),
        prefix_length: subnet.prefix_length(),
        gateway: subnet.gateway().to_string(),
        mac: link_address(&observed.vm.uid().unwrap_or_default()),
    })
}

/// The addresses of the resource group.
fn subnet(observed: &Observed) -> Option<SubnetRange> {
    observed.subnet.as_ref()?.spec.stored_range().ok()
}

/// A locally administered link address that follows from the virtual machine's uid, so that it outlives every restart.
fn link_address(uid: &str) -> String {
    let hex: String = uid.chars().filter(char::is_ascii_hexdigit).chain("0000000000".chars()).take(10).collect();
    let pairs: Vec<&str> = (0..5).map(|i| &hex[2 * i..2 * i + 2]).collect();
    format!("0a:{}", pairs.join(":"))
}
