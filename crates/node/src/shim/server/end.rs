//! How a workload ended: what the kernel reports, as a sentence.

use std::io;
use std::path::Path;

use rustix::process::{Pid, WaitStatus};

use crate::shim::spec::Spec;

pub(super) fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (_, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("ended by signal {signal} ({name})"),
            None => format!("ended by signal {signal}"),
        },
        _ => "ended".into(),
    }
}

/// Those that end processes.
fn signal_name(signal: i32) -> Option<&'static str> {
    let names = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    names.into_iter().find(|(number, _)| *number == signal).map(|(_, name)| name)
}

pub(super) fn read_pid(path: &Path) -> io::Result<Pid> {
    let text = std::fs::read_to_string(path)?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("expected a pid, found {text:?}")))
}

/// Our children, by a walk of /proc: `/proc/<pid>/task/<tid>/children` needs a kernel option that is often off.
pub(super) fn children() -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |pid: &i32| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.iter().rposition(|byte| *byte == b')').map_or(&[][..], |end| &stat[end + 1..]);
        let parent = std::str::from_utf8(rest).ok().and_then(|rest| rest.split_ascii_whitespace().nth(1)?.parse().ok());
        parent == Some(me)
    };
    pids.filter(is_ours).filter_map(Pid::from_raw).collect()
}

/// Sum of the kernel's counters of OOM kills in the workload's cgroups: `memory.events` (v2) or `memory.oom_control` (v1).
pub(super) fn oom_kills(spec: &Spec) -> u64 {
    let cgroups = if spec.oom_cgroups.is_empty() { &spec.cgroups } else { &spec.oom_cgroups };
    let files = cgroups.iter().flat_map(|cgroup| [cgroup.join("memory.events"), cgroup.join("memory.oom_control")]);
    let counts = files.filter_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
    });
    counts.sum()
}
