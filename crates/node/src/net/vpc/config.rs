//! What is wanted: of the instance, of a VPC, of a machine's place in it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::net::network::{PortSpec, VpcSpec};
use crate::net::uplink::Uplink;

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
    /// Resolvers that guests are told (see [`crate::net::resolvers`]); without a way out they are told none.
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
            dns: crate::net::resolvers::of_this_host(),
            mtu: 1500,
        }
    }
}

/// What is wanted of a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) vpc: VpcSpec,
    /// By the machine's uid.
    pub(super) ports: BTreeMap<String, PortSpec>,
    /// Which pair of the transit range it has.
    pub(super) transit_slot: Option<u32>,
}
