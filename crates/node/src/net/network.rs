//! The agent's interface to the host's network, as a trait: the real one is [`super::vpc::HostNetwork`], the one in memory
//! is [`super::memory::MemoryNetwork`].

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::error::NetworkError;
use super::mac::MacAddress;
use crate::io::BoxDuplex;

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
    /// The name that DHCP gives it.
    pub hostname: String,
}

/// Whether a port's tap is in the namespace of its VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a machine that runs without its tap has no network, and its status has to say so"]
pub enum TapState {
    /// The tap exists and is set up.
    Present,
    /// There is none: right before the machine starts, a fault of a machine that runs.
    Absent,
}

/// The network of this host: VPCs, and the ports of machines in them.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Makes the VPC and the machine's port in it like this. To be called before the machine starts, and again while it runs: then
    /// only differences are changed.
    async fn ensure_port(&self, vpc: &VpcSpec, port: &PortSpec) -> Result<TapState, NetworkError>;

    /// Makes the machine's tap and sets it up. The tap exists as long as a copy of the descriptor is open. Fails with a busy tap
    /// ([`NetworkError::is_busy`]) while a hypervisor holds it.
    async fn open_tap(&self, vpc_uid: &str, machine_uid: &str) -> Result<OwnedFd, NetworkError>;

    /// Removes the machine's port. An absent one counts as removed.
    async fn remove_port(&self, vpc_uid: &str, machine_uid: &str) -> Result<(), NetworkError>;

    /// Uids of the machines that have a port on this host, by the uid of their VPC.
    async fn ports(&self) -> BTreeMap<String, Vec<String>>;

    /// Opens a TCP connection into a VPC, from its gateway's address. Waits as long as the kernel tries: set a deadline. `NotFound`
    /// if the VPC is not on this host.
    async fn connect(&self, vpc_uid: &str, address: SocketAddr) -> io::Result<BoxDuplex>;

    /// Removes every VPC, and restores the host's settings. For the end of the instance, when no machine runs any more.
    async fn remove_all(&self) -> Result<(), NetworkError>;
}
