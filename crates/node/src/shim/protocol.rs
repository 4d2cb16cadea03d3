//! The protocol on the shim's socket: one JSON object a line, answered in order; after a successful `attach` the connection
//! carries raw bytes in both directions until either side closes it.
//!
//! The shim of an older release may be spoken to by a newer agent: requests and fields are only added, a request that a shim
//! does not know is answered with `ok: false`, and `hello` returns the shim's version.

use serde::{Deserialize, Serialize};

use super::process::ProcessIdentity;
use super::spec::Exit;

/// The version that this code implements.
pub const PROTOCOL_VERSION: u32 = 1;

/// A line from client to shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "op")]
pub(crate) enum Request {
    /// Requests version and id.
    Hello,
    /// Requests [`Status`].
    Status,
    /// Switches the connection to raw bytes, beginning with the last `replay_bytes` of output.
    Attach {
        /// How much of the past to show; bounded by `Spec::replay_bytes`.
        replay_bytes: usize,
    },
    /// Sends a signal to the workload.
    Signal {
        /// Signal number.
        signal: i32,
    },
    /// Sets the size of the terminal.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters.
        cols: u16,
    },
    /// Answered when the workload has ended and `exit.json` is on disk.
    Wait,
}

/// A line from shim to client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Response {
    /// Whether the request was carried out.
    pub ok: bool,
    /// The reason if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Answer to `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Answer to `hello`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Answer to `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Answer to `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

impl Response {
    pub(crate) fn ok() -> Self {
        Self { ok: true, ..Self::default() }
    }

    pub(crate) fn refused(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }

    pub(crate) fn line(&self) -> Vec<u8> {
        let mut line =
            serde_json::to_vec(self).unwrap_or_else(|_| br#"{"ok":false,"error":"cannot encode the answer"}"#.to_vec());
        line.push(b'\n');
        line
    }
}

/// The phase of the workload's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Being created; only with `Spec::pid_file`.
    Starting,
    /// Runs.
    Running,
    /// Has ended; its last output is being collected.
    Draining,
    /// Has ended and `exit.json` is written.
    Exited,
}

/// The status of a shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The phase of the workload's life.
    pub state: State,
    /// The workload.
    pub child: ProcessIdentity,
    /// The shim.
    pub shim: ProcessIdentity,
    /// Clients that are attached now.
    pub attached: usize,
    /// Output so far, in bytes.
    pub output_bytes: u64,
    /// Output that could not be written to the log.
    pub log_bytes_dropped: u64,
    /// Descriptors the shim holds open: tests look for leaks here.
    pub open_fds: usize,
}
