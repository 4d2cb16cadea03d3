//! The specification of a shim (`spec.json`), its record of processes (`pid.json`) and of the end (`exit.json`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::process::ProcessIdentity;

/// Version of the three files. A shim may be older than the agent that adopts it: fields are only ever added.
pub const SPEC_VERSION: u32 = 1;

/// The program to run, and the settings of its shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// [`SPEC_VERSION`] of the writer.
    pub version: u32,
    /// Name of the workload, for people and in `hello`.
    pub id: String,
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// The whole environment of the workload: nothing is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory.
    #[serde(default = "root_folder")]
    pub cwd: PathBuf,
    /// The user that the workload runs as; `None` leaves it as the shim was started.
    #[serde(default)]
    pub user: Option<User>,
    /// Set `PR_SET_NO_NEW_PRIVS` before executing the workload.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// Cgroup folders (one per hierarchy) the workload joins before it executes.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// Cgroup folders the shim itself joins, so that it does not share the fate of the service that started it.
    #[serde(default)]
    pub shim_cgroups: Vec<PathBuf>,
    /// Cgroup folders whose OOM-kill counter shows whether the workload ran out of memory; empty means `cgroups`.
    #[serde(default)]
    pub oom_cgroups: Vec<PathBuf>,
    /// `oom_score_adj` of the workload; only raising it works without CAP_SYS_RESOURCE.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// The workload's standard streams.
    #[serde(default)]
    pub stdio: Stdio,
    /// The target of standard error when `stdio` is [`Stdio::Pipe`].
    #[serde(default)]
    pub stderr: Stderr,
    /// How output is written to `log`.
    #[serde(default)]
    pub log: LogLimits,
    /// How many of the last bytes of output a late attacher is shown.
    #[serde(default = "default_replay")]
    pub replay_bytes: usize,
    /// File descriptors, open in the launching process under these numbers, that the workload gets under the same numbers.
    #[serde(default)]
    pub inherited_fds: Vec<i32>,
    /// The path of the shim's socket; at most 107 bytes (`sun_path`).
    pub socket: PathBuf,
    /// Set when `argv` only creates the workload and leaves its pid in this file (`runc create --pid-file`): once `argv` has
    /// ended with code 0, the process named there, by then the shim's child, is the workload.
    #[serde(default)]
    pub pid_file: Option<PathBuf>,
    /// The user that the shim becomes once the workload runs, keeping CAP_KILL alone; `None` leaves it as it was started.
    #[serde(default)]
    pub shim_user: Option<User>,
    /// Takes the workload out of the host's namespaces; `None` leaves it in those that the shim was started in.
    #[serde(default)]
    pub confinement: Option<Confinement>,
}

/// The view of the host that a workload in namespaces of its own (mount, network, process, IPC, host name) has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Confinement {
    /// An existing folder, over which the workload's root is mounted; on the host it stays empty.
    pub root: PathBuf,
    /// The files and folders that it sees, under the paths that they have on the host.
    pub visible: Vec<Visible>,
}

/// A file or folder that a confined workload sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Visible {
    /// Its absolute path.
    pub path: PathBuf,
    /// Whether the workload may write to it, as far as its owner and mode allow.
    #[serde(default)]
    pub is_writable: bool,
    /// Whether it is a device: every other device node below a visible path is dead.
    #[serde(default)]
    pub is_device: bool,
}

/// How much sooner than the platform's own processes (score 0) the kernel ends a container when the host runs out of memory.
pub const CONTAINER_OOM_SCORE: i32 = 500;
/// The same for a guest, which loses more by it than a container.
pub const GUEST_OOM_SCORE: i32 = 300;

impl Spec {
    /// A spec with every default: pipes, CRI log, no privileges changed.
    pub fn new(id: impl Into<String>, argv: Vec<String>, socket: impl Into<PathBuf>) -> Self {
        Self {
            version: SPEC_VERSION,
            id: id.into(),
            argv,
            env: BTreeMap::new(),
            cwd: root_folder(),
            user: None,
            no_new_privileges: false,
            cgroups: Vec::new(),
            shim_cgroups: Vec::new(),
            oom_cgroups: Vec::new(),
            oom_score_adj: None,
            stdio: Stdio::default(),
            stderr: Stderr::default(),
            log: LogLimits::default(),
            replay_bytes: default_replay(),
            inherited_fds: Vec::new(),
            socket: socket.into(),
            pid_file: None,
            shim_user: None,
            confinement: None,
        }
    }
}

fn root_folder() -> PathBuf {
    PathBuf::from("/")
}

/// Enough to show the last screens of a boot; more costs resident memory in every shim.
fn default_replay() -> usize {
    64 * 1024
}

/// A numeric identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// Standard streams of the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Stdio {
    /// Three pipes; input stays open and silent until a client attaches.
    #[default]
    Pipe,
    /// A pseudo-terminal of this size.
    Pty {
        /// Height in lines.
        rows: u16,
        /// Width in characters.
        cols: u16,
    },
}

/// The treatment of a piped workload's standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stderr {
    /// Into `log` beside standard output (kept apart by the CRI format) and to attached clients.
    #[default]
    Merge,
    /// Into the file `stderr`; the end of it is repeated in `exit.json`.
    Separate,
}

/// Format of `log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// `<RFC 3339 time, nanoseconds> <stdout|stderr> <P|F> <line>`, as Kubernetes' container runtimes write it.
    #[default]
    Cri,
    /// The bytes as they came: for a serial console, whose escape sequences and unfinished lines (a prompt) matter.
    Raw,
}

/// Size limits of a log. At most `max_bytes * max_files` stand on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLimits {
    /// Format of the lines.
    pub format: LogFormat,
    /// A file is rotated when the next write would pass this many bytes.
    pub max_bytes: u64,
    /// Files kept, the current one included; at least 1.
    pub max_files: u32,
}

impl Default for LogLimits {
    /// 10 MiB in 5 files: as the kubelet keeps of a container (`containerLogMaxSize`, `containerLogMaxFiles`).
    fn default() -> Self {
        Self { format: LogFormat::Cri, max_bytes: 10 << 20, max_files: 5 }
    }
}

/// Contents of `pid.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PidRecord {
    /// [`SPEC_VERSION`] of the shim.
    pub version: u32,
    /// As in the spec.
    pub id: String,
    /// `/proc/sys/kernel/random/boot_id` at the time.
    pub boot_id: String,
    /// The workload.
    pub child: ProcessIdentity,
    /// The shim.
    pub shim: ProcessIdentity,
    /// When the workload was started.
    pub started_at: jiff::Timestamp,
}

/// Contents of `exit.json`. Exactly one of `code`, `signal` is set when the workload itself ended; neither, when it could not be
/// started or its end was not observed: then `reason` says why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// [`SPEC_VERSION`] of the writer.
    pub version: u32,
    /// As in the spec.
    pub id: String,
    /// Exit code.
    pub code: Option<i32>,
    /// Number of the signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed something in its cgroup for lack of memory.
    #[serde(default)]
    pub oom: bool,
    /// When it was started; absent if it never was.
    pub started_at: Option<jiff::Timestamp>,
    /// When its end was noticed.
    pub finished_at: jiff::Timestamp,
    /// One sentence for people.
    pub reason: String,
    /// Last bytes of standard error; empty for a workload with a terminal, which has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr_tail: String,
    /// Output that did not fit on the disk.
    #[serde(default)]
    pub log_bytes_dropped: u64,
}

impl Exit {
    /// Whether the workload exited by itself with status 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}
