//! Starts ([`start`]), observes, stops and removes ([`end`]) machines.

mod end;
mod start;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use evroc_vmm::Offers;
use tokio::sync::Mutex;

use crate::cgroup::Cgroups;
use crate::machine::AcceleratorKind;
use crate::machine::config::MachineRunnerConfig;
use crate::machine::error::{MachineError, check_uid, failed};
use crate::machine::exclusive::Claims;
use crate::machine::paths::{MachinePaths, PREFIX, machines, names};
use crate::machine::record::{self, MachineRecord};
use crate::machine::running::{Machine, MonitorSlot};
use crate::pool::Pool;
use crate::shim::{self, Adopted, Exit, LogFormat, LogLimits, ShimClient, User};

/// For a hypervisor whose shim was killed to end by SIGTERM (which closes its disks) before SIGKILL.
const ORPHAN_LIMIT: Duration = Duration::from_secs(10);
/// The serial console: at most 8 MiB on disk, of which the last 64 KiB are shown to an attaching client.
const SERIAL_LOG: LogLimits = LogLimits { format: LogFormat::Raw, max_bytes: 2 << 20, max_files: 4 };

/// The state of a machine on this host, with access to a running one.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an observation is made now and then, and moved once")]
pub enum FoundMachine {
    /// It runs.
    Running(Machine),
    /// Its shim was killed; the reason is for people. Its hypervisor may live: see [`MachineRunner::end_orphan`].
    Orphaned(String),
    /// It has ended; record and logs are still on the host.
    Ended(Exit),
    /// It was never started, or not completely.
    Absent,
}

/// Runs machines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MachineRunner {
    pub(super) config: Arc<MachineRunnerConfig>,
    pub(super) cgroups: Cgroups,
    pub(super) volumes: Arc<dyn Pool>,
    pub(super) claims: Claims,
    /// Users are given out one at a time.
    users: Arc<Mutex<()>>,
    /// Conversations by machine: a hypervisor has one at a time, so all [`Machine`]s of one uid share it.
    monitors: Arc<std::sync::Mutex<HashMap<String, MonitorSlot>>>,
    offers: Arc<Mutex<HashMap<bool, Offers>>>,
}

impl MachineRunner {
    /// Makes the folders that all machines share.
    pub fn new(config: MachineRunnerConfig, volumes: Arc<dyn Pool>) -> Result<Self, MachineError> {
        for (path, mode) in [
            (machines(&config.state_dir), 0o711),
            (config.state_dir.join("shims"), 0o711),
            (config.run_dir.join("shim"), 0o711),
            (config.run_dir.join("vm"), 0o711),
        ] {
            fs::create_dir_all(&path)
                .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
                .map_err(failed("", "create", &path))?;
        }
        Ok(Self {
            config: Arc::new(config),
            cgroups: Cgroups::discover()?,
            volumes,
            claims: Claims::default(),
            users: Arc::default(),
            monitors: Arc::default(),
            offers: Arc::default(),
        })
    }

    /// Returns the folder of a machine's shim, which holds its serial log (see [`crate::shim::tail`]).
    pub fn shim_dir(&self, uid: &str) -> PathBuf {
        self.paths(uid).shim
    }

    /// Observes a machine. Nothing is started or ended, and an error is no evidence about the machine.
    pub async fn observe(&self, uid: &str) -> Result<FoundMachine, MachineError> {
        check_uid(uid)?;
        let paths = self.paths(uid);
        match shim::adopt(&paths.shim).await.map_err(failed(uid, "adopt", &paths.shim))? {
            Adopted::Running(shim) => {
                let record = record(uid, &paths)?.ok_or_else(|| MachineError::Invalid {
                    uid: uid.to_owned(),
                    expected: "machine.json beside a running hypervisor",
                    found: "none".into(),
                })?;
                Ok(FoundMachine::Running(self.machine(record, shim, paths.monitor)))
            }
            Adopted::Exited(exit) => Ok(FoundMachine::Ended(exit)),
            Adopted::ShimLost(lost) => Ok(FoundMachine::Orphaned(lost.reason.clone())),
            Adopted::Never => Ok(FoundMachine::Absent),
        }
    }

    /// Lists the uids of all machines of which this host has any part; unwanted ones are for [`Self::remove`].
    pub fn list(&self) -> Result<BTreeSet<String>, MachineError> {
        let mut found = names(&machines(&self.config.state_dir))?;
        let shims = names(&self.config.state_dir.join("shims"))?;
        let groups = self.cgroups.children(&self.config.instance);
        found.extend(shims.into_iter().chain(groups).filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned())));
        Ok(found)
    }

    /// Returns the hardware that new guests can have. The hypervisor is queried once.
    pub async fn offers(&self, accelerator: AcceleratorKind) -> Result<Offers, MachineError> {
        let mut known = self.offers.lock().await;
        if let Some(offers) = known.get(&(accelerator == AcceleratorKind::Kvm)) {
            return Ok(offers.clone());
        }
        let requested = self.config.hypervisor.offers(accelerator).await;
        let offers =
            requested.map_err(failed("", "list machine types of", Path::new(self.config.hypervisor.name())))?;
        known.insert(accelerator == AcceleratorKind::Kvm, offers.clone());
        Ok(offers)
    }

    pub(super) fn paths(&self, uid: &str) -> MachinePaths {
        MachinePaths::new(&self.config, uid)
    }

    fn machine(&self, record: MachineRecord, shim: ShimClient, socket: PathBuf) -> Machine {
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        let monitor = monitors.entry(record.uid.clone()).or_default().clone();
        Machine { record, shim, hypervisor: self.config.hypervisor.clone(), socket, monitor }
    }

    pub(super) fn user(&self, record: &MachineRecord) -> Option<User> {
        let id = self.config.first_uid? + record.user;
        Some(User { uid: id, gid: id, groups: Vec::new() })
    }
}

pub(super) fn record(uid: &str, paths: &MachinePaths) -> Result<Option<MachineRecord>, MachineError> {
    record::read(&paths.folder).map_err(|source| MachineError::Record { uid: uid.to_owned(), source })
}
