//! The settings with which a host runs machines.

use std::path::PathBuf;
use std::sync::Arc;

use evroc_vmm::Hypervisor;

use crate::shim::{ShimLauncher, ShimUsers};

/// The settings with which machines are run.
#[derive(Clone, Debug)]
pub struct MachineRunnerConfig {
    /// Names control groups.
    pub instance: String,
    /// The node's state: `/var/lib/<instance>/node`.
    pub state_dir: PathBuf,
    /// `/run/<instance>`.
    pub run_dir: PathBuf,
    /// The driver.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// How to start shims.
    pub shim: ShimLauncher,
    /// The users that shims become once their guests run. `None` (tests without root) leaves them the caller's.
    pub shim_users: Option<ShimUsers>,
    /// Control groups that shims join.
    pub shim_cgroups: Vec<PathBuf>,
    /// Uid and gid of the first machine; each has one of its own from here. `None` (tests without root) runs all as the caller.
    pub first_uid: Option<u32>,
}
