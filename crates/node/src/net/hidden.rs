//! Removing the name of a namespace that a later mount hides.
//!
//! A file that something is mounted on cannot be removed, and a mount that another one covers cannot be unmounted. But removing a file
//! ends every mount on it in *other* mount namespaces. So the file is removed from within a copy of our mounts, in which the covering
//! mounts can be taken away without anybody noticing.
#![allow(unsafe_code)]

use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Removes the file `path`, even if something is mounted on it or on its folder.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    std::thread::scope(|scope| {
        let work = || {
            // SAFETY: mounts and the current folder are unshared, not the table of file descriptors, and this thread ends right after.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            remove_in_copy(path)
        };
        let thread = std::thread::Builder::new().name("mounts".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Goes from the uppermost mount of the folder to the one at the bottom, and removes the file in each.
fn remove_in_copy(path: &Path) -> io::Result<()> {
    let folder = path.parent().ok_or(Errno::INVAL)?;
    loop {
        while is_unmounted(path)? {}
        let removed = crate::io::remove_file(path);
        if !is_unmounted(folder)? {
            return removed;
        }
    }
}

/// Takes the uppermost mount away; false if nothing is mounted.
fn is_unmounted(path: &Path) -> io::Result<bool> {
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
