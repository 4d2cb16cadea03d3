//! A container's root folder: the image's layers under a small layer of our own, stacked by overlayfs, read-only.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::bundle::{RESOLV_CONF, hosts_file};

/// Folders that the runtime mounts something on: the root is read-only, so they must exist.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// A failed step in making or removing a root folder.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct RootfsError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl RootfsError {
    fn new(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self { operation, path: path.to_owned(), source: source.into() }
    }
}

/// Makes `folder/skeleton` (our layer) and mounts it on top of `layers` (the uppermost first) at `folder/rootfs`.
pub fn mount_rootfs(folder: &Path, layers: &[PathBuf], hostname: &str) -> Result<PathBuf, RootfsError> {
    let skeleton = folder.join("skeleton");
    let rootfs = folder.join("rootfs");
    for path in [&skeleton, &skeleton.join("etc"), &rootfs] {
        make_folder(path)?;
    }
    for name in MOUNT_POINTS {
        make_folder(&skeleton.join(name))?;
    }
    // runc gives the tmpfs the mode of the folder below it.
    let tmp = skeleton.join("tmp");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777))
        .map_err(|source| RootfsError::new("set mode of", &tmp, source))?;
    for (name, text) in
        [("hosts", hosts_file(hostname)), ("hostname", format!("{hostname}\n")), ("resolv.conf", RESOLV_CONF.into())]
    {
        let path = skeleton.join("etc").join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .map_err(|source| RootfsError::new("write", &path, source))?;
    }
    // Named by descriptor: mount options end after one page, and 127 layers by their full paths do not fit.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &PathBuf| {
        openat(CWD, path, flags, Mode::empty()).map_err(|source| RootfsError::new("open layer", path, source))
    };
    let lower: Vec<OwnedFd> = [&skeleton].into_iter().chain(layers).map(open).collect::<Result<_, _>>()?;
    let names: Vec<_> = lower.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let options = std::ffi::CString::new(format!("lowerdir={}", names.join(":"))).unwrap_or_default();
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount("overlay", &rootfs, "overlay", flags, options.as_c_str())
        .map_err(|source| RootfsError::new("mount layers on", &rootfs, source))?;
    Ok(rootfs)
}

/// Whether the container would find `path` to be a folder.
pub fn has_folder(rootfs: &Path, path: &str) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, rootfs, flags, Mode::empty())
        .and_then(|root| openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS))
        .is_ok()
}

/// Unmounts what [`mount_rootfs`] mounted and removes `folder`. Absent pieces are fine.
pub fn remove_rootfs(folder: &Path) -> Result<(), RootfsError> {
    let rootfs = folder.join("rootfs");
    loop {
        match unmount(&rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => break,
            Err(source) => return Err(RootfsError::new("unmount", &rootfs, source)),
        }
    }
    crate::io::remove_tree(folder).map_err(|source| RootfsError::new("remove", folder, source))
}

fn make_folder(path: &Path) -> Result<(), RootfsError> {
    // Independent of our umask, the container's user must get through.
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|source| RootfsError::new("create", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn many_layers_are_stacked_and_removed() {
        let outer = tempfile::tempdir().unwrap();
        let layers: Vec<_> =
            (0..127).map(|index| outer.path().join(format!("layer-{index}-{}", "x".repeat(100)))).collect();
        for (index, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer.join("srv")).unwrap();
            fs::write(layer.join("srv/who"), index.to_string()).unwrap();
            fs::write(layer.join(format!("srv/{index}")), "").unwrap();
        }
        let folder = outer.path().join("bundle");
        let rootfs = mount_rootfs(&folder, &layers, "me").unwrap();
        assert_eq!(fs::read_to_string(rootfs.join("srv/who")).unwrap(), "0", "the first is the uppermost");
        assert_eq!(fs::read_dir(rootfs.join("srv")).unwrap().count(), 128);
        assert!(fs::read_to_string(rootfs.join("etc/hosts")).unwrap().ends_with("127.0.0.1\tme\n"));
        assert_eq!(fs::write(rootfs.join("x"), "").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(has_folder(&rootfs, "/srv") && !has_folder(&rootfs, "/srv/who") && !has_folder(&rootfs, "/nope"));
        remove_rootfs(&folder).unwrap();
        remove_rootfs(&folder).unwrap();
        assert!(!folder.exists() && layers[0].join("srv/who").exists());
    }
}
