//! Settings that all VPCs of an instance have in common.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::agent::host::HostConditions;
use crate::net::uplink::Uplink;

/// The settings that all VPCs of an instance share.
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
    /// Addresses for the links between VPCs and uplink: a range without other users (`198.18.0.0/15` is set aside for tests of
    /// network devices by RFC 2544, so no real network has it).
    pub transit: Ipv4Net,
    /// Resolvers that guests get (see [`crate::net::resolvers`]); without a way out they get none.
    pub dns: Vec<Ipv4Addr>,
    /// Largest packet that guests send.
    pub mtu: u16,
    /// How long a VPC stays after its last machine. Shorter makes everything again for a machine that is replaced; longer keeps
    /// namespaces that nothing needs.
    pub linger: Duration,
    /// The host's conditions, which report faults.
    pub conditions: HostConditions,
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
            dns: crate::net::resolvers::of_this_host(),
            mtu: 1500,
            linger: Duration::from_secs(60),
            conditions: HostConditions::default(),
        }
    }
}
