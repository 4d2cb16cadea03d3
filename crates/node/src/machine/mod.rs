//! Runs machines on this host: one guest each, in a hypervisor process under a shim. Knows no API object.
//!
//! ```text
//!                  start()                      monitor answers                  power_down()
//!   Absent ───────────────────► Starting ───────────────────────► Running ──────────────────────► Stopping
//!     ▲                            │ cannot start                    │ guest powers off,              │ gone in time, or
//!     │                            │                                 │ hypervisor or shim dies        │ quit, or killed
//!     │          remove()          ▼                                 ▼                                ▼
//!     └───────────────────────── Ended ◄────────────────────────────────────────────────────────────────
//!                                  │ start(): a new run in the same place
//!                                  └─────────► Starting
//! ```
//!
//! Which request is legal where is [`request::judge`], which is pure. What a machine consists of, all of it named after its uid and found again by [`MachineRunner::list`]:
//!
//! | piece | place |
//! |---|---|
//! | record, seed disk | `<state>/machines/<uid>/{machine.json,seed.img}` |
//! | shim, serial log | `<state>/shims/vm-<uid>/` |
//! | monitor socket | `<run>/vm/<uid>.sock`: made here, given to the hypervisor as a descriptor |
//! | limits | control group `/<instance>/vm-<uid>` |
//! | its user | `RunnerConfig::first_uid` + a number kept in the record: no two machines share one |
//!
//! Volumes and taps are not made here: a volume is handed to the machine's user at start and taken back at the end, a tap comes
//! as an open descriptor.

mod limits;
mod ready;
mod record;
pub mod request;
mod runner;
mod running;

use std::os::fd::OwnedFd;

pub use ready::{wait_for_serial, wait_for_serial_in};
pub use record::MachineRecord;
pub use runner::{Found, MachineError, MachineRunner, RunnerConfig};
pub use running::{Machine, StopManner, Stopped};

use crate::seed::SeedInput;
pub use evroc_vmm::probe::Kind as AcceleratorKind;

/// A machine to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Names this machine on this host: letters, digits and `-`.
    pub uid: String,
    /// For people: appears in the process list.
    pub name: String,
    /// Kept in the record, so that a restarted agent knows which binding it finds running.
    pub epoch: i64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in bytes, in whole MiB.
    pub memory_bytes: u64,
    /// Volumes of this host in the order of their devices: `/dev/vda`, then after the seed `/dev/vdc`, …
    pub volumes: Vec<VolumeUse>,
    /// What the guest is told about itself. Its `instance_id`, a UUID, is also the guest's SMBIOS system id.
    pub seed: SeedInput,
    /// What executes the guest's instructions.
    pub accelerator: AcceleratorKind,
}

/// A volume of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUse {
    /// Its uid in the [`crate::pool::Pool`].
    pub uid: String,
    /// Whether the firmware boots from it.
    pub is_boot: bool,
}

/// The network device of one run of a machine.
#[derive(Debug)]
pub struct Nic {
    /// The open, attached tap. The hypervisor gets its own copy.
    pub tap: OwnedFd,
    /// Link address, `xx:xx:xx:xx:xx:xx`.
    pub mac: String,
    /// MTU that the guest's driver is told.
    pub mtu: Option<u16>,
}
