//! One installation on this machine: its name, its places on disk, its resources, and its running process.

mod format;
mod lock;
mod record;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use format::ensure_format;
pub use lock::{InstanceLock, LockError, registry_lock};
pub use record::{InstanceRecord, Ports, UserFiles, all_records, choose_uid_base};

/// The folder in which instances are recorded. One place for the machine, independent of each instance's state folder: that is how
/// they avoid each other.
pub const INSTANCES_DIR: &str = "/var/lib/evroc-instances";
/// Default of `--state-dir-root`.
pub const STATE_ROOT: &str = "/var/lib";
/// The folder of sockets; it does not survive a reboot, as required.
const RUN_ROOT: &str = "/run";

/// A valid instance name: it becomes part of paths, cgroups, network namespaces and nftables tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(String);

/// A name that cannot be an instance's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("instance name {0:?}: expected a small letter, then at most 19 small letters, digits or dashes")]
pub struct InvalidName(String);

impl FromStr for InstanceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bytes = text.as_bytes();
        let fits = (1..=20).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.to_owned())) }
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl InstanceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The paths of an instance's files. Pure: nothing is read.
#[derive(Debug, Clone)]
pub struct Layout {
    /// `/var/lib/<instance>`.
    pub state: PathBuf,
    /// `/run/<instance>`.
    pub run: PathBuf,
}

impl Layout {
    /// The places of `instance`, with its state below `state_root`.
    pub fn new(instance: &InstanceName, state_root: &Path) -> Self {
        Self { state: state_root.join(instance.as_str()), run: Path::new(RUN_ROOT).join(instance.as_str()) }
    }

    /// Folder of a role.
    pub fn role(&self, role: &str) -> PathBuf {
        self.state.join(role)
    }

    /// Where control reads kinds of the operator's own; absent where there are none.
    pub fn definitions(&self) -> PathBuf {
        self.role("control").join("definitions")
    }

    /// The program that roles and shims run: a copy, because unprivileged roles cannot read the folder that it was built in.
    pub fn program(&self) -> PathBuf {
        self.state.join("bin/evrocd")
    }

    /// The folder of the authority and its key, which only root may open.
    pub fn authority(&self) -> PathBuf {
        self.state.join("pki/authority")
    }

    /// The authority's certificate, for everybody.
    pub fn public_authority(&self) -> PathBuf {
        self.state.join("pki/ca.crt")
    }

    /// A log file, by `supervisor` or a role's name.
    pub fn log(&self, name: &str) -> PathBuf {
        self.state.join("log").join(format!("{name}.log"))
    }

    /// Disk images.
    pub fn images(&self) -> PathBuf {
        self.state.join("node/images")
    }

    /// Folders of shims.
    pub fn shims(&self) -> PathBuf {
        self.state.join("node/shims")
    }

    /// The node role's finding about hardware acceleration.
    pub fn accelerator(&self) -> PathBuf {
        self.state.join("node/accel.json")
    }

    /// The supervisor's socket.
    pub fn supervisor_socket(&self) -> PathBuf {
        self.run.join("supervisor.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_everywhere_are_taken_and_others_refused() {
        for (name, want) in [
            ("evroc", true),
            ("a", true),
            ("t-1a2b3c", true),
            ("abcdefghij0123456789", true),
            ("abcdefghij01234567890", false),
            ("", false),
            ("1a", false),
            ("-a", false),
            ("Evroc", false),
            ("a/b", false),
            ("a_b", false),
            ("ä", false),
        ] {
            assert_eq!(name.parse::<InstanceName>().is_ok(), want, "{name:?}");
        }
    }
}
