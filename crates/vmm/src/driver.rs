//! The interface of every hypervisor driver; a hypervisor's quirks stay in its driver.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::config::Kind;
use crate::config::{ConfigError, GuestConfig, HotDisk};
use crate::event::Events;

/// Turns guests into processes and controls them.
#[async_trait]
pub trait Hypervisor: Send + Sync + std::fmt::Debug {
    /// For people and logs.
    fn name(&self) -> &'static str;

    /// The process that is the guest. Standard input and output are its serial console; it ends with code 0 when the guest
    /// powers itself off, and not when it reboots.
    fn command(&self, guest: &GuestConfig) -> Result<GuestCommand, ConfigError>;

    /// The hardware that it can give to a guest; the first of each list is for new guests.
    async fn offers(&self, accelerator: Kind) -> std::io::Result<Offers>;

    /// Connects to the monitor behind the socket whose listening descriptor the guest was given.
    async fn connect(&self, socket: &Path, limit: Duration) -> Result<Box<dyn Monitor>, MonitorError>;
}

/// Named versions of virtual hardware that a driver offers. A name means the same hardware with every later version of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Boards with their devices, for example `pc-i440fx-7.2`.
    pub machine_types: Vec<String>,
    /// Processors.
    pub cpu_models: Vec<String>,
}

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestCommand {
    /// Absolute path.
    pub program: PathBuf,
    /// Without the program's name.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Descriptors that must be open under these numbers.
    pub fds: Vec<RawFd>,
    /// Groups that its user has to be in beside its own.
    pub groups: Vec<u32>,
    /// All files that it needs, to be run in a mount namespace that has no others; `None` if the driver does not know them.
    pub files: Option<Vec<NeededFile>>,
}

/// A file or folder of the host that a guest's process needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededFile {
    /// Its absolute path; one that does not exist is not needed on this host.
    pub path: PathBuf,
    /// The way in which the process uses it.
    pub access: Access,
}

/// The way in which a guest's process uses a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads and executes.
    Read,
    /// Reads and writes.
    Write,
    /// Opens the device.
    Device,
}

/// The state of the guest in the hypervisor. Only [`GuestState::Running`] executes instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// Executes instructions.
    Running,
    /// Paused on request.
    Paused,
    /// The guest has put itself to sleep.
    Asleep,
    /// Stopped because the host's disk refused a write; goes on with that write when it is resumed.
    DiskError {
        /// Whether the host's disk is full; else it fails.
        is_full: bool,
    },
    /// The guest's kernel has reported a crash.
    Crashed,
    /// Stopped by a fault of the hypervisor or by a watchdog: resuming does not help.
    Broken,
    /// Powered off; the process is about to end.
    ShutDown,
}

impl GuestState {
    /// Whether [`Monitor::resume`] makes it go on.
    pub fn can_resume(self) -> bool {
        matches!(self, Self::Paused | Self::DiskError { .. })
    }
}

/// A disk as the hypervisor has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualDisk {
    /// The monitor's name of it.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// Size that the guest sees, in bytes.
    pub size_bytes: u64,
    /// Whether it was attached to the running guest, so that it can be detached again.
    pub is_hot: bool,
}

/// A conversation with one running guest.
#[async_trait]
pub trait Monitor: Send + Sync + std::fmt::Debug {
    /// Returns the state of the guest.
    async fn state(&self) -> Result<GuestState, MonitorError>;
    /// Presses the power button: the guest decides.
    async fn power_down(&self) -> Result<(), MonitorError>;
    /// Ends the hypervisor at once, its disks closed in order. The guest is not notified.
    async fn quit(&self) -> Result<(), MonitorError>;
    /// Stops executing instructions.
    async fn pause(&self) -> Result<(), MonitorError>;
    /// Presses the reset button: the guest is not asked.
    async fn reset(&self) -> Result<(), MonitorError>;
    /// Goes on.
    async fn resume(&self) -> Result<(), MonitorError>;
    /// Grows a disk and notifies the guest. `id` as in the configuration.
    async fn grow_disk(&self, id: &str, size_bytes: u64) -> Result<(), MonitorError>;
    /// Adds a disk on the SCSI bus.
    async fn attach_disk(&self, disk: &HotDisk) -> Result<(), MonitorError>;
    /// Removes a disk that was added; done when the hypervisor has let go of the file.
    async fn detach_disk(&self, id: &str) -> Result<(), MonitorError>;
    /// The disks that it has now.
    async fn disks(&self) -> Result<Vec<ActualDisk>, MonitorError>;
    /// Events from now on.
    fn events(&self) -> Events;
    /// Returns when the conversation is over, mostly because the guest has ended.
    async fn closed(&self);
}

/// The reason why a monitor did not execute a command.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum MonitorError {
    #[error("connect to the monitor at {}", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("open {} for the guest", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{command}: the monitor has closed the connection")]
    Closed { command: String },
    #[error("{command}: no answer within {limit:?}")]
    Late { command: String, limit: Duration },
    #[error("{command}: {class}: {description}")]
    Refused { command: String, class: String, description: String },
    #[error("{command}: expected {expected} in the answer, found {found}")]
    Answer { command: String, expected: &'static str, found: String },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{what} is not supported by the {driver} driver")]
    Unsupported { driver: &'static str, what: &'static str },
}
