//! The shim's event loop: output to log and clients, input to the workload. Requests are answered in [`requests`], the end of the
//! workload is handled in [`ending`].

mod ending;
mod requests;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitStatus};

use super::connection::{Connection, Mode};
use super::end::oom_kills;
use super::log::{LogWriter, Stream};
use super::spawn::Streams;
use super::{privileges, report};
use crate::shim::protocol::State;
use crate::shim::spec::{PidRecord, Spec, Stderr};

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
}

fn keep_last(ring: &mut VecDeque<u8>, bytes: &[u8], limit: usize) {
    let bytes = &bytes[bytes.len().saturating_sub(limit)..];
    let excess = (ring.len() + bytes.len()).saturating_sub(limit);
    ring.drain(..excess.min(ring.len()));
    ring.extend(bytes);
}
