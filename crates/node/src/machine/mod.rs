//! Runs machines on this host: one guest each, in a hypervisor process under a shim. Knows no API object.
//!
//! ```text
//!                  start()                      monitor answers                  stop()
//!   Absent ───────────────────► Starting ───────────────────────► Running ──────────────────────► Stopping
//!     ▲                            │ cannot start                    │    │ guest powers off,          │ powered off in time,
//!     │                            │                    shim killed  │    │ hypervisor dies            │ quit, or killed
//!     │                            │                                 ▼    │                            │
//!     │                            │                    Orphaned     │    │                            │
//!     │          remove()          ▼                       │ end_orphan() ▼                            ▼
//!     └───────────────────────── Ended ◄───────────────────┴───────────────────────────────────────────
//!                                  │ start(): a new run in the same place
//!                                  └─────────► Starting
//! ```
//!
//! While it is Running, the hypervisor reports the state of the guest ([`evroc_vmm::GuestState`]): a process that lives need not
//! execute the guest. Every change of a machine is a request to its owner ([`owner`]), one at a time; which request is legal when
//! is [`request::judge`], which is pure. An observation changes nothing, and one that failed is no evidence about the machine.
//!
//! The parts of a machine, all named after its uid and found again by [`MachineRunner::list`]:
//!
//! | piece | place |
//! |---|---|
//! | record, seed disk, mark of deletion | `<state>/machines/<uid>/{machine.json,seed.img,deleted}` |
//! | shim, serial log | `<state>/shims/vm-<uid>/` |
//! | monitor socket | `<run>/vm/<uid>.sock`: made here, given to the hypervisor as a descriptor |
//! | limits | control group `/<instance>/vm-<uid>` |
//! | its user | `MachineRunnerConfig::first_uid` + a number kept in the record: no two machines share one |
//!
//! Volumes and taps are not made here: a volume is handed to the machine's user at start and taken back at the end, a tap comes
//! as an open descriptor.

mod config;
pub mod devices;
mod error;
mod exclusive;
pub mod guests;
mod last_log;
mod limits;
pub mod memory;
pub mod owner;
mod paths;
mod ready;
mod real;
mod record;
pub mod request;
mod runner;
mod running;

use std::os::fd::OwnedFd;

pub use config::MachineRunnerConfig;
pub use error::MachineError;
pub use guests::{Guests, StopManner, Stopped};
pub use ready::{wait_for_serial, wait_for_serial_in};
pub use record::{MachineRecord, RecordError};
pub use runner::{FoundMachine, MachineRunner};
pub use running::Machine;

use crate::seed::SeedInput;
pub use evroc_vmm::probe::Kind as AcceleratorKind;

/// A machine to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Names this machine on this host: letters, digits and `-`.
    pub uid: String,
    /// For people.
    pub name: String,
    /// Kept in the record, so that a restarted agent knows which binding it finds running.
    pub epoch: i64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in bytes, in whole MiB.
    pub memory_bytes: u64,
    /// Volumes of this host in the order of their devices: `/dev/vda`, then after the seed `/dev/vdc`, …
    pub volumes: Vec<VolumeUse>,
    /// The facts that the guest learns about itself. Its `instance_id`, a UUID, is also the guest's SMBIOS system id.
    pub seed: SeedInput,
    /// The accelerator of the guest.
    pub accelerator: AcceleratorKind,
    /// The board and its devices; `None` takes the hypervisor's first.
    pub machine_type: Option<String>,
    /// The processor, likewise.
    pub cpu_model: Option<String>,
}

impl MachineConfig {
    /// The disks that the guest should have, for [`devices::diff`].
    pub fn wanted_disks(&self) -> Vec<devices::WantedDisk> {
        let wanted = |used: &VolumeUse| devices::WantedDisk {
            volume: used.uid.clone(),
            serial: used.serial(),
            size_bytes: used.size_bytes,
        };
        self.volumes.iter().map(wanted).collect()
    }
}

/// A volume of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUse {
    /// Its uid in the [`crate::pool::Pool`].
    pub uid: String,
    /// The uid of the Disk that it stands behind: what users know it by.
    pub disk_uid: Option<String>,
    /// Whether the firmware boots from it.
    pub is_boot: bool,
    /// Size that a running guest should see; `None` leaves it as it is.
    pub size_bytes: Option<u64>,
}

impl VolumeUse {
    /// The serial number of the disk in the guest.
    pub fn serial(&self) -> String {
        crate::pool::serial(self.disk_uid.as_deref().unwrap_or(&self.uid))
    }
}

/// The network device of one run of a machine.
#[derive(Debug)]
pub struct Nic {
    /// The open, attached tap. The hypervisor gets its own copy.
    pub tap: OwnedFd,
    /// Link address, `xx:xx:xx:xx:xx:xx`.
    pub mac: String,
    /// MTU that is announced to the guest's driver.
    pub mtu: Option<u16>,
}
