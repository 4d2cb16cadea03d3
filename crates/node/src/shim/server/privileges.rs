//! The rest of root's rights once the workload runs: CAP_KILL, to pass signals on to a workload of another user.

use std::io;
use std::os::unix::fs::chown;
use std::path::Path;

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::spawn;
use crate::shim::spec::User;

/// Makes everything in the shim's folder but `spec.json` (it may hold secrets, and is not needed any more) the shim's own.
pub(super) fn give_folder(dir: &Path, user: &User) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != "spec.json" {
            chown(entry.path(), Some(user.uid), Some(user.gid))?;
        }
    }
    chown(dir, Some(user.uid), Some(user.gid))
}

/// Becomes `user`, keeping CAP_KILL.
pub(super) fn keep_only_kill(user: &User) -> io::Result<()> {
    rustix::thread::set_keep_capabilities(true)?;
    spawn::become_user(user)?;
    let kill = CapabilitySet::KILL;
    let sets = CapabilitySets { effective: kill, permitted: kill, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_keep_capabilities(false)?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}
