//! Processes named so that a reused pid is never mistaken: pid, start time and boot.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// A process within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The identity of a process that lives now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start_time: stat_field(&stat, 22)?.parse().ok()? })
    }

    /// This process.
    pub fn current() -> Option<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// A handle that cannot come to mean another process; `None` when the process has ended (a zombie has).
    pub fn open(self) -> Option<Handle> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // Compared after opening: if the start time fits now, the descriptor is of that process.
        if Self::of(self.pid)? != self {
            return None;
        }
        let handle = Handle { id: self, fd };
        (!handle.has_ended()).then_some(handle)
    }
}

/// Field `number` (as `proc(5)` counts) of a stat line, whose second field may hold spaces and parentheses.
pub fn stat_field(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number.checked_sub(3)?)
}

/// A process that is held by a pidfd.
#[derive(Debug)]
pub struct Handle {
    /// The process.
    pub id: ProcessId,
    fd: OwnedFd,
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handle {
    /// A handle on a child that was not reaped yet: its pid cannot be another's, even if it has ended.
    pub fn of_child(id: ProcessId) -> io::Result<Self> {
        let pid = Pid::from_raw(id.pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { id, fd: pidfd_open(pid, PidfdFlags::empty())? })
    }

    /// Sends a signal; a process that has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.fd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(count) if count > 0)
    }

    /// Waits until the process has ended. Works for processes that are not children.
    #[allow(unsafe_code)]
    pub async fn ended(&self) -> io::Result<()> {
        let fd = self.fd.try_clone()?;
        // SAFETY: an OwnedFd names the same open descriptor as long as it lives, and it lives inside the AsyncFd.
        let waiting = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?;
        waiting.readable().await?.retain_ready();
        Ok(())
    }

    /// The exit status, if the process is our child; reaps it.
    pub fn reap(&self) -> Option<Ended> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let status = waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
        Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Code(code),
            (None, Some(signal)) => Ended::Signal(signal),
            _ => return None,
        })
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

/// Id of this boot. Without it a start time means nothing.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A process as found in /proc.
#[derive(Debug, Clone)]
pub struct Found {
    /// Identity.
    pub id: ProcessId,
    /// The program, without the kernel's mark for a deleted file.
    pub program: PathBuf,
    /// Arguments, the program's name included.
    pub arguments: Vec<String>,
    /// Real uid.
    pub uid: u32,
}

/// All processes whose program and arguments the caller may read.
pub fn all() -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| found(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn found(pid: i32) -> Option<Found> {
    let id = ProcessId::of(pid)?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let program = match program.to_string_lossy().strip_suffix(" (deleted)") {
        Some(path) => PathBuf::from(path),
        None => program,
    };
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = arguments.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()?;
    Some(Found { id, program, arguments, uid })
}

/// Waits a little between two looks at something that gives no event.
#[expect(
    clippy::disallowed_methods,
    reason = "between two looks of a poll, on the command line, where nothing else waits"
)]
pub fn pause(time: std::time::Duration) {
    // The poll is the caller's loop.
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_strange_names_are_read() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1000 10";
        assert_eq!(stat_field(stat, 3), Some("S"));
        assert_eq!(stat_field(stat, 22), Some("777"));
        assert_eq!(stat_field("nonsense", 22), None);
    }

    #[test]
    fn a_reused_pid_is_not_the_same_process() {
        let id = ProcessId::current().unwrap();
        assert!(id.open().is_some());
        assert!(ProcessId { start_time: id.start_time + 1, ..id }.open().is_none());
        assert!(ProcessId { pid: i32::MAX, ..id }.open().is_none());
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "reaping it is what is tested")]
    async fn the_end_of_a_child_is_seen_with_its_code() {
        let child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Whether it has ended or not: until it is reaped its pid cannot be reused.
        let handle = Handle::of_child(ProcessId { pid, start_time: 0 }).unwrap();
        handle.ended().await.unwrap();
        assert!(handle.has_ended());
        assert_eq!(handle.reap(), Some(Ended::Code(7)));
    }
}
