//! Starts a role: its own session (Ctrl-C at the supervisor's terminal does not reach it), its user without capabilities, its sockets, its log.
//!
//! There is no parent-death signal: a role outlives a killed supervisor, keeps serving, and is ended by the next one.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Handle, ProcessId};

/// The parameters of a role process.
pub struct Start<'a> {
    /// The program.
    pub program: &'a Path,
    /// `control`, `edge` or `node`.
    pub role: &'a str,
    /// Its settings file.
    pub config: &'a Path,
    /// User and group; `None` stays root.
    pub user: Option<u32>,
    /// Environment variables that carry descriptor numbers, and the descriptors.
    pub descriptors: Vec<(&'static str, Vec<BorrowedFd<'a>>)>,
    /// The `cgroup.procs` of the groups that the process joins.
    pub groups: Vec<File>,
    /// Standard output and error.
    pub log: &'a File,
}

/// Variables that are passed on when set.
const PASSED_ON: &[&str] = &[crate::logging::FILTER, "RUST_BACKTRACE", "TZ"];
/// Below every workload: when memory runs out, a guest or container of a tenant ends before the platform of all does.
const OOM_SCORE: &[u8] = b"-500";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the process and returns a handle on it.
pub fn spawn(start: &Start<'_>) -> io::Result<Handle> {
    let mut command = Command::new(start.program);
    command
        .arg(start.role)
        .arg("--config")
        .arg(start.config)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", if start.user.is_some() { "/nonexistent" } else { "/root" })
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(start.log.try_clone()?)
        .stderr(start.log.try_clone()?);
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut passed: Vec<RawFd> = Vec::new();
    for (name, descriptors) in &start.descriptors {
        let numbers: Vec<String> = descriptors.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        command.env(name, numbers.join(","));
        passed.extend(descriptors.iter().map(AsRawFd::as_raw_fd));
    }
    let user = start.user;
    let groups: Vec<RawFd> = start.groups.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: the closure runs in the child between fork and exec and only makes system calls: it neither allocates nor takes locks.
    unsafe {
        command.pre_exec(move || in_child(&passed, &groups, user));
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    // Not reaped yet, so the pid is the child's even if it has ended; a zombie still has its stat line.
    let id = ProcessId::of(pid).ok_or_else(|| io::Error::other("the new process has no entry in /proc"))?;
    Handle::of_child(id)
}

fn in_child(passed: &[RawFd], groups: &[RawFd], user: Option<u32>) -> io::Result<()> {
    // SAFETY: plain system calls on values of this frame; failures that matter are checked.
    unsafe {
        check(libc::setsid())?;
        libc::umask(0o027);
        for group in groups {
            // "0" is the process that writes it.
            check(if libc::write(*group, b"0".as_ptr().cast(), 1) == 1 { 0 } else { -1 })?;
        }
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if score >= 0 {
            // Refused without CAP_SYS_RESOURCE; the score then stays that of the supervisor, which is below those of workloads too.
            libc::write(score, OOM_SCORE.as_ptr().cast(), OOM_SCORE.len());
            libc::close(score);
        }
        // Descriptors that the supervisor's own parent left open must not reach a role.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for fd in passed {
            check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
        if let Some(id) = user {
            let mut capability = 0;
            // Until the kernel knows no more capabilities.
            while libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 {
                capability += 1;
            }
            check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(id, id, id))?;
            // Leaving uid 0 clears the effective and permitted sets.
            check(libc::setresuid(id, id, id))?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        }
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
