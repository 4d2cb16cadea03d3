//! The end of the workload: collects its processes, ends its leftovers, writes `exit.json`, and answers the waiting clients.

use std::io;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::{End, FAREWELL, Pump};
use crate::cgroup::kill_members;
use crate::shim::files;
use crate::shim::process::ProcessIdentity;
use crate::shim::protocol::{Response, State};
use crate::shim::server::connection::Connection;
use crate::shim::server::end::{children, describe, oom_kills, read_pid};
use crate::shim::server::report;
use crate::shim::spec::{Exit, SPEC_VERSION, Stderr};

impl Pump<'_> {
    /// Collects ended children: ours, and orphans of the workload.
    pub(super) fn reap(&mut self) -> io::Result<()> {
        let mut buffer = [0; 128];
        while rustix::io::read(&self.signals, &mut buffer).is_ok() {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            self.early.insert(pid, status);
        }
        if self.state == State::Starting && self.early.contains_key(&self.main) {
            self.hand_over()?;
        }
        if self.state == State::Running
            && let Some(status) = self.early.get(&self.main).copied()
        {
            self.ended(Some(status), None);
        }
        if self.state != State::Starting {
            self.early.clear();
        }
        Ok(())
    }

    /// `argv` has ended; the workload is the process it left behind.
    fn hand_over(&mut self) -> io::Result<()> {
        let Some(status) = self.early.remove(&self.main) else { return Ok(()) };
        let Some(pid_file) = self.spec.pid_file.as_deref() else { return Ok(()) };
        if status.exit_status() != Some(0) {
            self.ended(Some(status), Some(format!("cannot start: {} {}", self.spec.argv[0], describe(status))));
            return Ok(());
        }
        match read_pid(pid_file) {
            Ok(pid) => {
                let number = pid.as_raw_nonzero().get();
                // A child that has ended meanwhile has no start time any more and needs none.
                let child = ProcessIdentity::of(number).unwrap_or(ProcessIdentity { pid: number, start_time: 0 });
                self.main = pid;
                self.record.child = child;
                files::write_json(&self.dir, "pid.json", 0o644, &self.record)?;
                self.workload_runs()
            }
            Err(error) => {
                self.ended(None, Some(format!("cannot start: read the pid in {}: {error}", pid_file.display())));
                Ok(())
            }
        }
    }

    fn ended(&mut self, status: Option<WaitStatus>, reason: Option<String>) {
        self.end = Some(End { status, reason, finished_at: Timestamp::now(), noticed: Instant::now() });
        self.state = State::Draining;
        self.streams.input = None;
        self.end_leftovers();
    }

    /// Kills everything that survives the workload: members of its cgroups and orphans that came to us.
    pub(super) fn end_leftovers(&self) {
        for cgroup in &self.spec.cgroups {
            kill_members(cgroup, Some(rustix::process::getpid()));
        }
        for pid in children() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// `None`: the disk refuses, try again later.
    pub(super) fn write_exit(&mut self) -> Option<Exit> {
        let end = self.end.as_ref()?;
        let now = Timestamp::now();
        self.log.finish(now);
        if let Some(log) = &mut self.error_log {
            log.finish(now);
        }
        let oom = oom_kills(self.spec) > self.oom_kills_before;
        let mut reason = match (&end.reason, end.status) {
            (Some(reason), _) => reason.clone(),
            (None, Some(status)) if oom && status.terminating_signal().is_some() => {
                format!("ran out of memory ({})", describe(status))
            }
            (None, Some(status)) => describe(status),
            (None, None) => "its end was not observed".into(),
        };
        let tail = match self.spec.stderr {
            Stderr::Separate => &mut self.stderr_tail,
            Stderr::Merge => &mut self.replay,
        };
        if !self.has_run && !tail.is_empty() {
            let tail = String::from_utf8_lossy(tail.make_contiguous());
            reason = format!("{reason}: {}", tail.trim_end());
        }
        let exit = Exit {
            version: SPEC_VERSION,
            id: self.spec.id.clone(),
            code: end.status.and_then(WaitStatus::exit_status),
            signal: end.status.and_then(WaitStatus::terminating_signal),
            oom,
            started_at: Some(self.record.started_at),
            finished_at: end.finished_at,
            reason,
            stderr_tail: String::from_utf8_lossy(self.stderr_tail.make_contiguous()).trim_end().to_owned(),
            log_bytes_dropped: self.dropped(),
        };
        let _ = files::release_reserve(&self.dir);
        match files::write_json(&self.dir, "exit.json", 0o644, &exit) {
            Ok(()) => {
                if !self.has_run {
                    report(Some(&exit.reason));
                }
                Some(exit)
            }
            // If the folder was removed, no record is wanted; waiting clients still get their answer.
            Err(_) if !self.dir.exists() => Some(exit),
            Err(error) => {
                eprintln!("write exit.json: {error}; removing rotated logs and trying again");
                for number in 1..self.spec.log.max_files {
                    let _ = std::fs::remove_file(self.dir.join(format!("log.{number}")));
                }
                None
            }
        }
    }

    pub(super) fn say_goodbye(mut self, exit: Exit) -> io::Result<()> {
        self.state = State::Exited;
        // Clients that connected but were not accepted yet are served too.
        self.turn(Some(Duration::ZERO))?;
        let line = Response { exit: Some(exit), ..Response::ok() }.line();
        for connection in self.connections.iter_mut().filter(|connection| connection.waits_for_exit) {
            connection.send(&line);
            connection.waits_for_exit = false;
        }
        let begun = Instant::now();
        while self.connections.iter().any(Connection::wants_write) && begun.elapsed() < FAREWELL {
            self.turn(Some(FAREWELL.saturating_sub(begun.elapsed())))?;
        }
        // Not permitted after privileges were dropped; the agent removes a socket without a listener.
        let _ = std::fs::remove_file(&self.spec.socket);
        Ok(())
    }
}
