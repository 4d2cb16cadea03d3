//! The paths of a machine's parts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::config::MachineRunnerConfig;
use super::error::{MachineError, failed};

/// The prefix of the names of a machine's shim, control group and socket.
pub(super) const PREFIX: &str = "vm-";

pub(super) struct MachinePaths {
    pub(super) folder: PathBuf,
    pub(super) seed: PathBuf,
    /// The place where the hypervisor's own root is mounted, in its mount namespace only.
    pub(super) root: PathBuf,
    pub(super) shim: PathBuf,
    pub(super) shim_socket: PathBuf,
    pub(super) monitor: PathBuf,
    pub(super) group: String,
}

impl MachinePaths {
    pub(super) fn new(config: &MachineRunnerConfig, uid: &str) -> Self {
        let MachineRunnerConfig { instance, state_dir, run_dir, .. } = config;
        let folder = machines(state_dir).join(uid);
        Self {
            seed: folder.join("seed.img"),
            root: folder.join("root"),
            folder,
            shim: state_dir.join("shims").join(format!("{PREFIX}{uid}")),
            shim_socket: run_dir.join("shim").join(format!("{PREFIX}{uid}.sock")),
            monitor: run_dir.join("vm").join(format!("{uid}.sock")),
            group: format!("/{instance}/{PREFIX}{uid}"),
        }
    }
}

/// The folder of all records.
pub(super) fn machines(state_dir: &Path) -> PathBuf {
    state_dir.join("machines")
}

/// The folder of the logs of former runs, by virtual machine.
pub(super) fn last_logs(state_dir: &Path) -> PathBuf {
    state_dir.join("last-logs")
}

pub(super) fn names(folder: &Path) -> Result<BTreeSet<String>, MachineError> {
    let read = || -> io::Result<BTreeSet<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(failed("", "list", folder))
}
