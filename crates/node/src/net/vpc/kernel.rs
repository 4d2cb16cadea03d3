//! The worker on the kernel: its settings, and queries. Everything here blocks.

use std::path::PathBuf;
use std::sync::Arc;

use super::config::NetworkConfig;
use crate::net::error::{NetworkError, file};
use crate::net::links::{self, Links};
use crate::net::names::Names;
use crate::net::netns::Netns;

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

    /// The links of a namespace.
    pub(super) fn links(&self, netns: &Netns) -> Result<Links, NetworkError> {
        netns.run(links::list)?.map_err(file("list the links of", netns.path()))
    }
}
