//! The protocol of `/run/<instance>/supervisor.sock`: the client sends one JSON line and reads lines until the connection ends.
//!
//! Every user may request the status; only root may do more.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::status::report::{RoleState, SupervisorState, Workload};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Request {
    /// The running roles.
    Status,
    /// Replace supervisor and roles by the program that is now in the state folder. Guests and containers stay.
    Reload,
    /// Replace the authority and the token key by new ones.
    RotateAuthority {
        /// How long the old authority stays trusted.
        overlap_seconds: u64,
        /// Whether to stop once both are trusted.
        is_held: bool,
    },
    /// Stop guests and containers, then the roles, then the supervisor.
    Down {
        /// How long guests get to shut down.
        timeout_seconds: u64,
    },
}

/// A line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Reply {
    /// The current activity.
    Progress {
        /// One line.
        message: String,
    },
    /// Answer to [`Request::Status`].
    Status(Box<SupervisorStatus>),
    /// Carried out.
    Done {
        /// One line.
        message: String,
    },
    /// Refused or failed.
    Error {
        /// One sentence.
        message: String,
    },
}

/// The supervisor's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupervisorStatus {
    /// Instance.
    pub instance: String,
    /// Its activity.
    pub state: SupervisorState,
    /// Version of the supervisor.
    pub version: String,
    /// Digest of its program.
    pub digest: String,
    /// Its process id.
    pub pid: i32,
    /// How long it runs, in seconds.
    pub uptime_seconds: u64,
    /// Domain of the fixed names and services.
    pub domain: String,
    /// API port.
    pub api_port: u16,
    /// HTTPS port.
    pub https_port: u16,
    /// Whether /etc/hosts has the fixed names.
    pub hosts_block: bool,
    /// State folder.
    pub state_dir: PathBuf,
    /// The roles, by name.
    pub roles: BTreeMap<String, RoleStatus>,
    /// Guests and containers by the shims that hold them; absent for callers who may not see them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Vec<Workload>>,
    /// How guests are accelerated, as the node found out; JSON as written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<serde_json::Value>,
}

/// One role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    /// Its activity.
    pub state: RoleState,
    /// Process id, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How long it runs, in seconds.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// How often it was restarted since the supervisor started.
    pub restarts: u32,
    /// How it last ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
}

/// A line of the pipe between `up --detach` and the supervisor that it started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum StartLine {
    /// The result.
    Note {
        /// One line.
        message: String,
    },
    /// All roles are ready.
    Ready(Box<SupervisorStatus>),
    /// The start failed and everything that it started was stopped.
    Failed {
        /// Explains what went wrong and what to do.
        message: String,
    },
}
