//! What every hypervisor driver offers; its quirks stay in it.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::config::{ConfigError, GuestConfig, HotDisk};

/// Turns guests into processes and speaks to them.
#[async_trait]
pub trait Hypervisor: Send + Sync + std::fmt::Debug {
    /// For people and logs.
    fn name(&self) -> &'static str;

    /// What this driver can do beyond running a guest.
    fn capabilities(&self) -> Capabilities;

    /// The process that is the guest. Standard input and output are its serial console; it ends with code 0 when the guest
    /// powers itself off, and not when it reboots.
    fn command(&self, guest: &GuestConfig) -> Result<GuestCommand, ConfigError>;

    /// Connects to the monitor behind the socket whose listening descriptor the guest was given.
    async fn connect(&self, socket: &Path, limit: Duration) -> Result<Box<dyn Monitor>, MonitorError>;
}

/// What a driver can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// [`Monitor::attach_disk`], [`Monitor::detach_disk`].
    pub can_hot_swap: bool,
    /// [`Monitor::grow_disk`].
    pub can_grow_online: bool,
    /// [`Monitor::pause`], [`Monitor::resume`].
    pub can_pause: bool,
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
}

/// What the hypervisor says of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestState {
    /// Executes instructions.
    Running,
    /// Paused by us.
    Paused,
    /// Stopped by the hypervisor because of an error: the host's disk is full, or fails.
    Stopped,
    /// Powered off; the process is about to end.
    ShutDown,
}

/// A conversation with one running guest.
#[async_trait]
pub trait Monitor: Send + Sync + std::fmt::Debug {
    /// What the guest does.
    async fn state(&self) -> Result<GuestState, MonitorError>;
    /// Presses the power button: the guest decides.
    async fn power_down(&self) -> Result<(), MonitorError>;
    /// Ends the hypervisor at once, its disks closed in order. The guest is not asked.
    async fn quit(&self) -> Result<(), MonitorError>;
    /// Stops executing instructions.
    async fn pause(&self) -> Result<(), MonitorError>;
    /// Goes on.
    async fn resume(&self) -> Result<(), MonitorError>;
    /// Tells the guest that a disk has grown, and grows it. `id` as in the configuration.
    async fn grow_disk(&self, id: &str, size_bytes: u64) -> Result<(), MonitorError>;
    /// Adds a disk on the SCSI bus.
    async fn attach_disk(&self, disk: &HotDisk) -> Result<(), MonitorError>;
    /// Removes a disk that was added; done when the hypervisor has let go of the file.
    async fn detach_disk(&self, id: &str) -> Result<(), MonitorError>;
    /// Returns when the conversation is over, mostly because the guest has ended.
    async fn closed(&self);
}

/// Why a monitor did not do as it was asked.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum MonitorError {
    #[error("connect to the monitor at {}", socket.display())]
    Connect {
        socket: PathBuf,
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
