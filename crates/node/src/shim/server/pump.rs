//! The shim's event loop: output to log and clients, input to the workload, requests, and the end.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::connection::{Connection, Mode};
use super::end::{children, describe, oom_kills, read_pid};
use super::log::{LogWriter, Stream};
use super::spawn::{self, Streams, Target};
use super::{privileges, report};
use crate::cgroup::kill_members;
use crate::shim::files;
use crate::shim::process::ProcessIdentity;
use crate::shim::protocol::{PROTOCOL_VERSION, Request, Response, State, Status};
use crate::shim::spec::{Exit, PidRecord, SPEC_VERSION, Spec, Stderr};

/// Input that waits for a workload which does not read; beyond it clients are not read from either.
const MAX_INPUT_BYTES: usize = 64 * 1024;
/// How long output may trickle in after the end, from a process that holds the pipe and cannot be killed.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a client may take to fetch the last bytes.
const FAREWELL: Duration = Duration::from_secs(2);
/// Between attempts to write `exit.json` to a full disk.
const RETRY: Duration = Duration::from_secs(1);
/// A client that never sends anything costs a descriptor; more than these are never needed.
const MAX_CONNECTIONS: usize = 128;
const STDERR_TAIL_BYTES: usize = 2048;

pub(super) struct Pump<'a> {
    spec: &'a Spec,
    dir: PathBuf,
    record: PidRecord,
    main: Pid,
    streams: Streams,
    signals: OwnedFd,
    listener: UnixListener,
    log: LogWriter,
    error_log: Option<LogWriter>,
    connections: Vec<Connection>,
    state: State,
    replay: VecDeque<u8>,
    input: VecDeque<u8>,
    output_bytes: u64,
    stderr_tail: VecDeque<u8>,
    /// Children that ended before it was known that they matter.
    early: HashMap<Pid, WaitStatus>,
    end: Option<End>,
    has_run: bool,
    oom_kills_before: u64,
}

/// The facts about the workload's end, until they are on disk.
struct End {
    status: Option<WaitStatus>,
    reason: Option<String>,
    finished_at: Timestamp,
    noticed: Instant,
}

#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Output,
    Error,
    Input,
    Connection(usize),
}

impl<'a> Pump<'a> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        spec: &'a Spec,
        dir: PathBuf,
        record: PidRecord,
        main: Pid,
        streams: Streams,
        signals: OwnedFd,
        listener: UnixListener,
        log: LogWriter,
        error_log: Option<LogWriter>,
    ) -> Self {
        let oom_kills_before = oom_kills(spec);
        Self {
            spec,
            dir,
            record,
            main,
            streams,
            signals,
            listener,
            log,
            error_log,
            connections: Vec::new(),
            state: State::Starting,
            replay: VecDeque::new(),
            input: VecDeque::new(),
            output_bytes: 0,
            stderr_tail: VecDeque::new(),
            early: HashMap::new(),
            end: None,
            has_run: false,
            oom_kills_before,
        }
    }

    /// Runs until `exit.json` is written and the clients know it.
    pub(super) fn run(mut self) -> io::Result<()> {
        if self.spec.pid_file.is_none() {
            self.workload_runs()?;
        }
        loop {
            match self.state {
                State::Starting | State::Running => self.turn(None)?,
                State::Draining => {
                    let left = self.end.as_ref().map_or(DRAIN, |end| DRAIN.saturating_sub(end.noticed.elapsed()));
                    let is_drained = self.streams.output.is_none() && self.streams.error.is_none();
                    if !is_drained && !left.is_zero() {
                        self.turn(Some(left))?;
                        self.end_leftovers();
                    } else if let Some(exit) = self.write_exit() {
                        return self.say_goodbye(exit);
                    } else {
                        self.turn(Some(RETRY))?;
                    }
                }
                State::Exited => return Ok(()),
            }
        }
    }

    /// The workload is up: report it, and drop root's rights.
    fn workload_runs(&mut self) -> io::Result<()> {
        if let Some(user) = &self.spec.shim_user {
            // Files of a hand-over are newer than the first time.
            privileges::give_folder(&self.dir, user)?;
            privileges::keep_only_kill(user)?;
        }
        self.state = State::Running;
        self.has_run = true;
        report(None);
        Ok(())
    }

    /// Waits for one round of events and handles them.
    fn turn(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let ready = self.wait_for_events(limit)?;
        for (source, flags) in ready {
            match source {
                Source::Signals => self.reap()?,
                Source::Listener => self.accept(),
                Source::Output => self.read_output(Stream::Stdout),
                Source::Error => self.read_output(Stream::Stderr),
                Source::Input => self.write_input(),
                Source::Connection(index) => self.serve(index, flags),
            }
        }
        self.connections.retain(|connection| !connection.is_over());
        Ok(())
    }

    fn wait_for_events(&self, limit: Option<Duration>) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![(Source::Signals, self.signals.as_fd(), PollFlags::IN)];
        if self.connections.len() < MAX_CONNECTIONS {
            sources.push((Source::Listener, self.listener.as_fd(), PollFlags::IN));
        }
        let input = self.streams.input.as_ref().filter(|_| !self.input.is_empty());
        let streams = [
            (Source::Output, self.streams.output.as_ref(), PollFlags::IN),
            (Source::Error, self.streams.error.as_ref(), PollFlags::IN),
            (Source::Input, input, PollFlags::OUT),
        ];
        sources.extend(streams.into_iter().filter_map(|(source, fd, flags)| Some((source, fd?.as_fd(), flags))));
        for (index, connection) in self.connections.iter().enumerate() {
            let mut flags = PollFlags::empty();
            let is_held_back = connection.mode == Mode::Attached && self.input.len() >= MAX_INPUT_BYTES;
            flags.set(PollFlags::IN, connection.wants_read() && !is_held_back);
            flags.set(PollFlags::OUT, connection.wants_write());
            sources.push((Source::Connection(index), connection.fd(), flags));
        }
        let mut fds: Vec<_> = sources.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let limit = limit
            .map(|limit| Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: i64::from(limit.subsec_nanos()) });
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, ..), fd)| (*source, fd.revents())).collect())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(connection) = Connection::new(stream) {
                self.connections.push(connection);
            }
        }
    }

    fn serve(&mut self, index: usize, flags: PollFlags) {
        let connection = &mut self.connections[index];
        if flags.contains(PollFlags::OUT) {
            connection.flush();
        }
        if flags.contains(PollFlags::ERR) || (flags.contains(PollFlags::HUP) && !flags.contains(PollFlags::IN)) {
            connection.broke();
            return;
        }
        if !flags.contains(PollFlags::IN) {
            return;
        }
        connection.read();
        while let Some(request) = self.connections[index].next_request() {
            self.answer(index, request);
        }
        let typed = self.connections[index].take_input();
        if !typed.is_empty() && self.streams.input.is_some() {
            self.input.extend(typed);
            self.write_input();
        }
    }

    fn answer(&mut self, index: usize, request: Request) {
        let response = match request {
            Request::Hello => {
                Response { version: Some(PROTOCOL_VERSION), id: Some(self.spec.id.clone()), ..Response::ok() }
            }
            Request::Status => Response { status: Some(self.status()), ..Response::ok() },
            Request::Signal { signal } => self.signal(signal),
            Request::Resize { rows, cols } => self.resize(rows, cols),
            Request::Wait => {
                self.connections[index].waits_for_exit = true;
                return;
            }
            Request::Attach { replay_bytes } => {
                let skipped = self.replay.len().saturating_sub(replay_bytes);
                let past: Vec<u8> = self.replay.iter().skip(skipped).copied().collect();
                let connection = &mut self.connections[index];
                connection.send(&Response::ok().line());
                connection.mode = Mode::Attached;
                connection.send(&past);
                return;
            }
        };
        self.connections[index].send(&response.line());
    }

    fn status(&self) -> Status {
        Status {
            state: self.state,
            child: self.record.child,
            shim: self.record.shim,
            attached: self.connections.iter().filter(|connection| connection.mode == Mode::Attached).count(),
            output_bytes: self.output_bytes,
            log_bytes_dropped: self.dropped(),
            open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1)),
        }
    }

    fn dropped(&self) -> u64 {
        self.log.dropped() + self.error_log.as_ref().map_or(0, LogWriter::dropped)
    }

    /// Signals the workload; while it is being created, the processes that create it. As long as the workload is not reaped (which
    /// only happens here, in the same thread), its pid is its own.
    fn signal(&self, number: i32) -> Response {
        if !(1..=libc::SIGRTMAX()).contains(&number) {
            return Response::refused(format!(
                "signal: expected a number from 1 to {}, found {number}",
                libc::SIGRTMAX()
            ));
        }
        let result = match self.state {
            State::Running => spawn::send_signal(self.main, Target::Process, number),
            // `argv` began a session, so its group is its own.
            State::Starting => spawn::send_signal(self.main, Target::Group, number),
            State::Draining | State::Exited => return Response::refused("signal: the workload does not run"),
        };
        match result {
            Ok(()) => Response::ok(),
            Err(error) => Response::refused(format!("signal {number}: {error}")),
        }
    }

    fn resize(&self, rows: u16, cols: u16) -> Response {
        let (true, Some(terminal)) = (self.streams.is_terminal, &self.streams.output) else {
            return Response::refused("resize: the workload has no terminal");
        };
        match rustix::termios::tcsetwinsize(terminal, spawn::winsize(rows, cols)) {
            Ok(()) => Response::ok(),
            Err(errno) => Response::refused(format!("resize: {errno}")),
        }
    }

    fn read_output(&mut self, stream: Stream) {
        let source = match stream {
            Stream::Stdout => &mut self.streams.output,
            Stream::Stderr => &mut self.streams.error,
        };
        let Some(fd) = source else { return };
        let mut buffer = [0; 64 * 1024];
        let count = match rustix::io::read(&*fd, &mut buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            // A terminal without a process on it answers EIO.
            Err(_) => 0,
        };
        if count == 0 {
            *source = None;
            return;
        }
        let bytes = &buffer[..count];
        self.output_bytes += count as u64;
        let now = Timestamp::now();
        if stream == Stream::Stderr {
            keep_last(&mut self.stderr_tail, bytes, STDERR_TAIL_BYTES);
        }
        if stream == Stream::Stderr && self.spec.stderr == Stderr::Separate {
            if let Some(log) = &mut self.error_log {
                log.write(stream, bytes, now);
            }
            return;
        }
        self.log.write(stream, bytes, now);
        keep_last(&mut self.replay, bytes, self.spec.replay_bytes);
        for connection in self.connections.iter_mut().filter(|connection| connection.mode == Mode::Attached) {
            connection.send(bytes);
        }
    }

    fn write_input(&mut self) {
        while !self.input.is_empty() {
            let Some(fd) = &self.streams.input else { return self.input.clear() };
            match rustix::io::write(fd, self.input.as_slices().0) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.streams.input = None;
                    self.input.clear();
                }
            }
        }
    }

    /// Collects ended children: ours, and orphans of the workload.
    fn reap(&mut self) -> io::Result<()> {
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
    fn end_leftovers(&self) {
        for cgroup in &self.spec.cgroups {
            kill_members(cgroup, Some(rustix::process::getpid()));
        }
        for pid in children() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// `None`: the disk refuses, try again later.
    fn write_exit(&mut self) -> Option<Exit> {
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

    fn say_goodbye(mut self, exit: Exit) -> io::Result<()> {
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

fn keep_last(ring: &mut VecDeque<u8>, bytes: &[u8], limit: usize) {
    let bytes = &bytes[bytes.len().saturating_sub(limit)..];
    let excess = (ring.len() + bytes.len()).saturating_sub(limit);
    ring.drain(..excess.min(ring.len()));
    ring.extend(bytes);
}
