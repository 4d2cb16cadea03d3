//! Naming a process so that it cannot be confused with a later one of the same pid.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// Identifies a process within one boot of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
}

impl ProcessIdentity {
    /// The identity of a process that lives now. `NotFound` if it has ended.
    pub fn of(pid: i32) -> io::Result<Self> {
        match std::fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => start_time(&stat).map(|start_time| Self { pid, start_time }).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))
            }),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(io::ErrorKind::NotFound.into()),
            Err(error) => Err(error),
        }
    }

    /// The identity of the calling process.
    pub fn current() -> io::Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// A handle on the process if it still runs; a zombie counts as ended.
    pub fn open(self) -> io::Result<Option<ProcessHandle>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Read the start time after opening: if it matches now, the descriptor cannot name a later process.
        match Self::of(self.pid) {
            Ok(found) if found == self => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let handle = ProcessHandle { identity: self, fd };
        Ok(if handle.has_ended()? { None } else { Some(handle) })
    }
}

/// The start time in the text of `/proc/<pid>/stat`; the command name before it may hold spaces and parentheses.
fn start_time(stat: &[u8]) -> Option<u64> {
    let after_name = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    std::str::from_utf8(after_name).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A process that is held by pidfd: signals reach this process or none.
#[derive(Debug)]
pub struct ProcessHandle {
    identity: ProcessIdentity,
    fd: OwnedFd,
}

impl ProcessHandle {
    /// The opened file.
    pub fn identity(&self) -> ProcessIdentity {
        self.identity
    }

    /// Sends a signal; `Ok(false)` if the process has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the process has ended (it may still be a zombie).
    pub fn has_ended(&self) -> io::Result<bool> {
        self.wait_blocking(Duration::ZERO)
    }

    /// Blocks until the process has ended or the time is over; returns whether it has ended.
    pub fn wait_blocking(&self, limit: Duration) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: i64::from(limit.subsec_nanos()) };
        Ok(poll(&mut fds, Some(&limit))? > 0)
    }

    /// Waits until the process has ended.
    #[allow(unsafe_code)]
    pub async fn wait(&self) -> io::Result<()> {
        // SAFETY: the descriptor is borrowed from `self`, which outlives the registration, and is not closed meanwhile.
        let fd = unsafe {
            tokio::io::unix::AsyncFd::register_with_interest(self.fd.as_fd(), tokio::io::Interest::READABLE)?
        };
        fd.readable().await.map(|_| ())
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Identifies the running boot of this machine: start times of another boot mean nothing.
pub fn boot_id() -> io::Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = BOOT_ID.get() {
        return Ok(id);
    }
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT_ID.get_or_init(|| id.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_strange_command_names() {
        let stat = b"42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1000 200";
        assert_eq!(start_time(stat), Some(777));
        assert_eq!(start_time(b"garbage"), None);
    }

    #[test]
    fn a_wrong_start_time_names_no_process() {
        let me = ProcessIdentity::current().unwrap();
        assert!(me.open().unwrap().is_some());
        let other = ProcessIdentity { start_time: me.start_time + 1, ..me };
        assert!(other.open().unwrap().is_none());
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id().cast_signed()).unwrap();
        if let Some(handle) = identity.open().unwrap() {
            assert!(handle.wait_blocking(Duration::from_secs(10)).unwrap());
        }
        assert!(identity.open().unwrap().is_none());
        child.wait().unwrap();
    }
}
