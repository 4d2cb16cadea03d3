//! Network namespaces that outlive processes: made, entered and removed by path.
//!
//! A namespace is kept by a bind mount of its `ns/net` file, as `ip netns` does. All entering happens on threads of
//! our own: a tokio worker that changed its namespace would carry later, unrelated work into it.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Magic number of the file system that namespace files live on (`NSFS_MAGIC` in `linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// A failed operation on a network namespace.
#[derive(Debug, thiserror::Error)]
#[error("{operation} network namespace {}", path.display())]
pub struct NetnsError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl NetnsError {
    pub(super) fn new(operation: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Self { operation, path: path.to_owned(), source: source.into() }
    }

    /// The namespace does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::NotFound
    }
}

/// A handle on a network namespace; it stays usable after the namespace's path has been removed.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace at `path` and makes sure that it is one: a plain file left by a half-made
    /// namespace, or after a reboot, counts as not found.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let file = File::open(path).map_err(|source| NetnsError::new("open", path, source))?;
        let stat = rustix::fs::fstatfs(&file).map_err(|source| NetnsError::new("open", path, source))?;
        if stat.f_type as u64 != NSFS_MAGIC {
            return Err(NetnsError::new("open", path, std::io::Error::from(std::io::ErrorKind::NotFound)));
        }
        Ok(Self { fd: file.into(), path: path.to_owned() })
    }

    /// A namespace by its descriptor; `path` is for messages.
    pub(super) fn from_fd(fd: OwnedFd, path: &Path) -> Self {
        Self { fd, path: path.to_owned() }
    }

    /// Gives the namespace another path, by which it is found from now on.
    pub fn mount_at(&self, path: &Path) -> Result<(), NetnsError> {
        File::create(path).map_err(|source| NetnsError::new("create", path, source))?;
        let own = format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd());
        mount_bind(own, path).map_err(|source| NetnsError::new("mount", path, source))
    }

    /// The namespace that this process lives in.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    /// Opens the namespace at `path`, making it first if it is absent. A new one has `lo` up and nothing else.
    /// The folder must exist.
    pub fn ensure(path: &Path) -> Result<Self, NetnsError> {
        match Self::open(path) {
            Err(error) if error.is_not_found() => Self::create(path),
            other => other,
        }
    }

    fn create(path: &Path) -> Result<Self, NetnsError> {
        File::create(path).map_err(|source| NetnsError::new("create", path, source))?;
        let target = path.to_owned();
        std::thread::Builder::new()
            .name("netns".into())
            .spawn(move || -> Result<(), NetnsError> {
                // SAFETY: only the network namespace is unshared, not the table of file descriptors, and this
                // thread ends right here.
                unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                    .map_err(|source| NetnsError::new("unshare", &target, source))?;
                set_loopback_up().map_err(|source| NetnsError::new("set lo up in", &target, source))?;
                mount_bind("/proc/thread-self/ns/net", &target)
                    .map_err(|source| NetnsError::new("mount", &target, source))
            })
            .map_err(|source| NetnsError::new("start a thread for", path, source))?
            .join()
            .unwrap_or_else(|_| Err(NetnsError::new("create", path, std::io::Error::other("the thread panicked"))))?;
        Self::open(path)
    }

    /// Removes the namespace's name, also one that a later mount hides; the namespace itself ends when the last process, socket and
    /// handle has left it. An absent name counts as removed.
    pub fn remove(path: &Path) -> Result<(), NetnsError> {
        // More than one mount can be stacked on the path when two processes raced to make it.
        loop {
            match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => continue,
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(source) => return Err(NetnsError::new("unmount", path, source)),
            }
        }
        let removed = match crate::io::remove_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => super::hidden::remove(path),
            other => other,
        };
        removed.map_err(|source| NetnsError::new("remove", path, source))
    }

    /// Returns the path at which the namespace was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread into the namespace, for good. Only for threads made for this purpose.
    pub fn enter_for_good(&self) -> Result<(), NetnsError> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|source| NetnsError::new("enter", &self.path, source))
    }

    /// Runs `work` inside the namespace on a thread made for it, and waits for it (blocking).
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || {
                    self.enter_for_good()?;
                    Ok(work())
                })
                .map_err(|source| NetnsError::new("start a thread for", &self.path, source))?
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Whether two handles mean the same namespace.
    pub fn is_same(&self, other: &Self) -> bool {
        match (rustix::fs::fstat(&self.fd), rustix::fs::fstat(&other.fd)) {
            (Ok(a), Ok(b)) => a.st_ino == b.st_ino && a.st_dev == b.st_dev,
            _ => false,
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Sets `lo` up in the calling thread's namespace.
fn set_loopback_up() -> std::io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `request` is a zeroed ifreq with the NUL-terminated name "lo"; both ioctls read and write only that
    // structure, which outlives them.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
