//! The folder that the namespaces of VPCs are kept in: a mount point of its own, which no other program knows.
//!
//! `/run/netns` belongs to `ip netns`, which mounts that folder over itself when it is first used: a namespace that was mounted below
//! it before can then be reached by no path. In a folder of our own this does not happen. Its mount is private: mounts in it do not spread
//! to other mount namespaces, and removing a namespace's file ends the copies that were made when one was unshared.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};

use super::netns::NetnsError;

/// Makes the folder, if it is not a private mount point already.
pub fn prepare(path: &Path) -> Result<(), NetnsError> {
    fs::create_dir_all(path).map_err(|source| NetnsError::new("create the folder for", path, source))?;
    let make_private = || mount_change(path, MountPropagationFlags::PRIVATE);
    match make_private() {
        // Not a mount point yet.
        Err(Errno::INVAL) => {
            let bound = mount_bind_recursive(path, path).and_then(|()| make_private());
            bound.map_err(|source| NetnsError::new("mount the folder for", path, source))
        }
        other => other.map_err(|source| NetnsError::new("make private the folder for", path, source)),
    }
}

/// Lists the paths in the folder; none if the folder is absent.
pub fn list(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes the folder; the namespaces in it must have been removed before. An absent folder counts as removed.
pub fn remove(path: &Path) -> Result<(), NetnsError> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => continue,
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(source) => return Err(NetnsError::new("unmount the folder for", path, source)),
        }
    }
    crate::io::if_present(fs::remove_dir(path))
        .map(|_| ())
        .map_err(|source| NetnsError::new("remove the folder for", path, source))
}
