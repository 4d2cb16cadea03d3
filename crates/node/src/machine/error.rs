//! Errors of machines.

use std::io;
use std::path::{Path, PathBuf};

use evroc_vmm::MonitorError;
use thiserror::Error;

use super::record::RecordError;
use crate::cgroup::CgroupError;
use crate::pool::PoolError;
use crate::seed::SeedError;
use crate::shim::{ClientError, Exit, SpawnError};
use crate::uid::Uid;

/// An operation on a machine that failed.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum MachineError {
    #[error("machine {uid:?}: {operation} {}", path.display())]
    Io {
        uid: String,
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("machine {uid:?}: expected {expected}, found {found}")]
    Invalid { uid: String, expected: &'static str, found: String },
    #[error("machine {uid:?}: describe the guest to the hypervisor")]
    Config {
        uid: String,
        #[source]
        source: evroc_vmm::config::ConfigError,
    },
    #[error("machine {uid:?}: read its record")]
    Record {
        uid: String,
        #[source]
        source: RecordError,
    },
    #[error(transparent)]
    Volume(#[from] PoolError),
    #[error(transparent)]
    Seed(#[from] SeedError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error("machine {uid:?}: its hypervisor ended at once: {}", describe(exit))]
    Ended { uid: String, exit: Box<Exit> },
    #[error("machine {uid:?} does not run")]
    NotRunning { uid: String },
}

fn describe(exit: &Exit) -> String {
    match exit.stderr_tail.lines().last() {
        Some(line) => format!("{}: {line}", exit.reason),
        None => exit.reason.clone(),
    }
}

pub(super) fn failed(
    uid: &str,
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> MachineError + use<> {
    let (uid, path) = (uid.to_owned(), path.to_owned());
    move |source| MachineError::Io { uid, operation, path, source }
}

/// A uid becomes the name of folders, sockets and groups.
pub(super) fn check_uid(uid: &str) -> Result<(), MachineError> {
    uid.parse::<Uid>().map(drop).map_err(|_| MachineError::Invalid {
        uid: uid.to_owned(),
        expected: "a uid of letters, digits and '-'",
        found: format!("{uid:?}"),
    })
}
