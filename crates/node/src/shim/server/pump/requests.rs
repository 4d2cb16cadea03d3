//! Answers the requests of clients.

use super::Pump;
use crate::shim::protocol::{PROTOCOL_VERSION, Request, Response, State, Status};
use crate::shim::server::connection::Mode;
use crate::shim::server::log::LogWriter;
use crate::shim::server::spawn::{self, Target};

impl Pump<'_> {
    pub(super) fn answer(&mut self, index: usize, request: Request) {
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

    pub(super) fn dropped(&self) -> u64 {
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
}
