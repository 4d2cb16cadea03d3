//! DHCP for the machines of one VPC: a request on a tap gets the address of that tap's machine, and nothing else.
//!
//! There is no pool and no state: the answer is a pure function ([`answer`]) of the request and of the machine's place. The
//! server ([`server`]) is one socket in the VPC's namespace.

pub mod packet;
pub mod server;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use self::packet::{Kind, Reply, Request, code};
use super::mac::MacAddress;

/// The lease time. Addresses never change while a machine has them, so this only limits how long the agent may be down before a guest
/// loses its network.
const LEASE_S: u32 = 7 * 24 * 3600;

/// The lease of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its link address: requests from another one are ignored.
    pub mac: MacAddress,
    /// Its address.
    pub address: Ipv4Addr,
    /// The VPC's addresses.
    pub subnet: Ipv4Net,
    /// Router and DHCP server.
    pub gateway: Ipv4Addr,
    /// Resolvers.
    pub dns: Vec<Ipv4Addr>,
    /// Largest packet that the way out carries.
    pub mtu: u16,
    /// Its name.
    pub hostname: String,
}

/// The answer to a request that came in on the machine's tap; `None` where silence is right.
pub fn answer(request: &Request, lease: &Lease) -> Option<Reply> {
    if request.mac != lease.mac.0 {
        return None;
    }
    let asked = request.kind?;
    let kind = match asked {
        Kind::Discover => Kind::Offer,
        Kind::Request => {
            if request.server.is_some_and(|server| server != lease.gateway) {
                return None;
            }
            // Renewing names the address in the header, everything else in an option.
            let has = Some(request.client_address).filter(|address| !address.is_unspecified());
            if request.requested.or(has)? == lease.address { Kind::Ack } else { Kind::Nak }
        }
        Kind::Inform => Kind::Ack,
        Kind::Offer | Kind::Ack | Kind::Nak => return None,
    };
    let mut reply =
        Reply { kind, your_address: Ipv4Addr::UNSPECIFIED, client_address: Ipv4Addr::UNSPECIFIED, options: Vec::new() };
    reply.addresses(code::SERVER, &[lease.gateway]);
    if kind == Kind::Nak {
        reply.option(code::MESSAGE, format!("your address is {}", lease.address));
        return Some(reply);
    }
    reply.client_address = request.client_address;
    if asked != Kind::Inform {
        reply.your_address = lease.address;
        reply.option(code::LEASE_TIME, LEASE_S.to_be_bytes());
        reply.option(code::RENEWAL_TIME, (LEASE_S / 2).to_be_bytes());
        reply.option(code::REBINDING_TIME, (LEASE_S / 8 * 7).to_be_bytes());
    }
    reply.addresses(code::SUBNET_MASK, &[lease.subnet.netmask()]);
    reply.addresses(code::BROADCAST, &[lease.subnet.broadcast()]);
    reply.addresses(code::ROUTER, &[lease.gateway]);
    reply.option(code::MTU, lease.mtu.to_be_bytes());
    if !lease.dns.is_empty() {
        reply.addresses(code::DNS, &lease.dns);
    }
    if !lease.hostname.is_empty() {
        reply.option(code::HOSTNAME, lease.hostname.as_bytes());
    }
    Some(reply)
}

#[cfg(test)]
mod tests;
