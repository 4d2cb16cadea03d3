//! One client of the shim: first lines of JSON, after `attach` raw bytes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::shim::protocol::{Request, Response};

/// A request is tiny; a longer line is no client of ours.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// How far an attached client may be behind before it is cut off. Higher costs memory in the shim for every stuck client; lower cuts
/// off clients over a slow tunnel in the middle of a boot's output.
const MAX_BACKLOG_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Lines,
    Attached,
}

pub(super) struct Connection {
    stream: UnixStream,
    pub(super) mode: Mode,
    pub(super) waits_for_exit: bool,
    unread: Vec<u8>,
    backlog: VecDeque<u8>,
    has_input_ended: bool,
    is_broken: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            mode: Mode::Lines,
            waits_for_exit: false,
            unread: Vec::new(),
            backlog: VecDeque::new(),
            has_input_ended: false,
            is_broken: false,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether it can be forgotten. A client may close its sending side and still watch the output.
    pub(super) fn is_over(&self) -> bool {
        self.is_broken
            || (self.has_input_ended && self.backlog.is_empty() && self.mode == Mode::Lines && !self.waits_for_exit)
    }

    pub(super) fn wants_read(&self) -> bool {
        !self.has_input_ended
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.backlog.is_empty()
    }

    pub(super) fn broke(&mut self) {
        self.is_broken = true;
    }

    /// Queues bytes and sends what goes without waiting.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.backlog.extend(bytes);
        self.flush();
        if self.backlog.len() > MAX_BACKLOG_BYTES {
            self.is_broken = true;
        }
    }

    pub(super) fn flush(&mut self) {
        while !self.backlog.is_empty() && !self.is_broken {
            let (front, _) = self.backlog.as_slices();
            match self.stream.write(front) {
                Ok(written) => drop(self.backlog.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.is_broken = true,
            }
        }
    }

    /// Reads once. The bytes are for [`Self::next_request`] or [`Self::take_input`].
    pub(super) fn read(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.has_input_ended = true,
            Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.is_broken = true,
        }
    }

    /// The next request that came in whole.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        while self.mode == Mode::Lines {
            let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') else {
                self.is_broken |= self.unread.len() > MAX_LINE_BYTES;
                return None;
            };
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(request) => return Some(request),
                Err(error) => self.send(&Response::refused(format!("unknown request: {error}")).line()),
            }
        }
        None
    }

    /// The input of an attached client.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        match self.mode {
            Mode::Attached => std::mem::take(&mut self.unread),
            Mode::Lines => Vec::new(),
        }
    }
}
