//! The shim: a tiny parent process for one workload (a guest's hypervisor, a container's runtime), so that neither the
//! agent nor the supervisor is ever the parent of what users run and both can be restarted, upgraded or killed.
//!
//! ```text
//!            spawn()                      handoff ok (or none needed)            workload ends
//!  (nothing) ──────► starting ─────────────────────────────► running ─────────────────────────► draining ─► exit.json
//!                       │ cannot start                          │ kill -9 of the shim                          │
//!                       ▼                                       ▼                                              ▼
//!                   exit.json                               ShimLost (adopt() finds the child, ends it)     process ends
//! ```
//!
//! The files in the folder of a shim, with their writers:
//!
//! | file | writer | content |
//! |---|---|---|
//! | `spec.json` | [`ShimLauncher::spawn`] | [`Spec`]: what to run; 0600, its environment may hold secrets |
//! | `lock` | shim | held (flock) as long as the shim lives |
//! | `pid.json` | shim | [`PidRecord`]: workload and shim, each as pid and start time, and the boot they belong to |
//! | `log`, `log.1`, … | shim | the workload's output, rotated by size |
//! | `stderr`, `stderr.1` | shim | the same for standard error when it is kept apart |
//! | `shim.err` | shim | errors of the shim itself |
//! | `.reserve` | shim | keeps room on the disk for `exit.json` |
//! | `exit.json` | shim (or [`LostShim::end`]) | [`Exit`]: how it ended; written last, synced, atomically |
//!
//! Invariants:
//! - The workload executes nothing before `pid.json` is on disk, so that there is never an unknown child.
//! - A process is only ever named by pid, start time and boot; a pid alone is never signalled.
//! - A full disk costs log bytes, never the workload.
//! - The shim is single-threaded: it forks, and it drops privileges per thread. [`run`] refuses to start otherwise.
//! - After its child runs, the shim is `Spec::shim_user` with CAP_KILL and nothing else. It does not become the workload's
//!   user: a guest that breaks out of its hypervisor must not be able to stop, trace or impersonate its shim.

mod adopt;
mod client;
mod files;
mod logs;
mod process;
mod protocol;
mod server;
mod spec;
mod users;

pub use adopt::{Adopted, LostShim, adopt, adopt_within};
pub use client::{Attached, ClientError, ShimClient, ShimLauncher, SpawnError};
pub use files::is_locked as is_served;
pub use logs::{CriLine, log_files, parse_cri_line, tail};
pub use process::{ProcessHandle, ProcessIdentity, boot_id};
pub use protocol::{PROTOCOL_VERSION, State, Status};
pub use server::{ShimError, run};
pub use spec::{
    CONTAINER_OOM_SCORE, Confinement, Exit, GUEST_OOM_SCORE, LogFormat, LogLimits, PidRecord, SPEC_VERSION, Spec,
    Stderr, Stdio, User, Visible,
};
pub use users::{ChosenUser, ShimUsers};
