//! Namespaces of its own for a workload: it sees the files that its spec names, no network and no other process.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount, unmount,
};
use rustix::process::pivot_root;
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::shim::spec::{Confinement, Visible};

/// Room for the folders that visible paths are mounted on.
const ROOT_OPTIONS: &std::ffi::CStr = c"size=1m,mode=755";

/// Has the next child of this process, and only that, begin a process namespace, in which it is number 1.
pub(super) struct NewProcessNamespace {
    own: OwnedFd,
}

impl NewProcessNamespace {
    pub(super) fn begin() -> io::Result<Self> {
        let own = rustix::fs::openat(CWD, "/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        // SAFETY: the shim is single-threaded, and the flag concerns its later children only.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
        Ok(Self { own })
    }

    pub(super) fn end(self) -> io::Result<()> {
        let kind = Some(rustix::thread::LinkNameSpaceType::ProcessID);
        Ok(rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&self.own), kind)?)
    }
}

/// Leaves the host's namespaces, and sees only what `confinement` names. Call it as root, in a process with one thread. An error is a sentence.
pub(super) fn enter(confinement: &Confinement) -> Result<(), String> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: the process has one thread and shares no memory or descriptors with another.
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|errno| format!("leave the host's namespaces: {errno}"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|errno| format!("make mounts private: {errno}"))?;
    let root = &confinement.root;
    let options = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", root, "tmpfs", options, ROOT_OPTIONS).map_err(|errno| format!("mount the root: {errno}"))?;
    // The workload's user has to pass through the folders.
    let umask = rustix::process::umask(Mode::from_raw_mode(0o022));
    for visible in &confinement.visible {
        show(root, visible).map_err(|error| format!("show {}: {error}", visible.path.display()))?;
    }
    rustix::process::umask(umask);
    mount_remount(root, MountFlags::RDONLY | options, ROOT_OPTIONS)
        .map_err(|errno| format!("protect the root: {errno}"))?;
    rustix::process::chdir(root).map_err(|errno| format!("enter the root: {errno}"))?;
    // The old root ends up on top of the new one, and is then taken off.
    pivot_root(".", ".").map_err(|errno| format!("make it the root: {errno}"))?;
    unmount(".", UnmountFlags::DETACH).map_err(|errno| format!("leave the host's files: {errno}"))?;
    rustix::process::chdir("/").map_err(|errno| format!("enter the root: {errno}"))
}

/// Takes every capability out of the bounding set: no program that the workload executes can gain one.
pub(super) fn drop_bounding_set() -> Result<(), String> {
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel may know fewer of them than the library.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(format!("give up {capability:?} for good: {errno}")),
        }
    }
    Ok(())
}

/// Makes a path of the host visible below `root`. A symbolic link is repeated as one, so that `/lib` may lead to `/usr/lib`.
fn show(root: &Path, visible: &Visible) -> io::Result<()> {
    let inside = below(root, &visible.path)?;
    if let Some(folder) = inside.parent() {
        fs::create_dir_all(folder)?;
    }
    let kind = fs::symlink_metadata(&visible.path)?.file_type();
    if kind.is_symlink() {
        return symlink(fs::read_link(&visible.path)?, &inside);
    }
    if kind.is_dir() {
        fs::create_dir_all(&inside)?;
    } else {
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(&inside)?;
    }
    mount_bind_recursive(&visible.path, &inside)?;
    let mut flags = MountFlags::BIND | MountFlags::NOSUID;
    if !visible.is_device {
        flags |= MountFlags::NODEV;
    }
    if !visible.is_writable {
        flags |= MountFlags::RDONLY;
    }
    Ok(mount_remount(&inside, flags, "")?)
}

fn below(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut inside = root.to_owned();
    for part in path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(name) => inside.push(name),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "expected an absolute path without `.` and `..`",
                ));
            }
        }
    }
    Ok(inside)
}
