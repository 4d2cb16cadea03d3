//! The settings with which a host runs machines.

use std::path::PathBuf;
use std::sync::Arc;

use evroc_vmm::Hypervisor;

use crate::shim::{ShimLauncher, User};

/// The settings with which machines are run.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
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
    /// The user that a shim becomes once its guest runs.
    pub shim_user: Option<User>,
    /// Control groups that shims join.
    pub shim_cgroups: Vec<PathBuf>,
    /// Uid and gid of the first machine; each has one of its own from here. `None` (tests without root) runs all as the caller.
    pub first_uid: Option<u32>,
}
