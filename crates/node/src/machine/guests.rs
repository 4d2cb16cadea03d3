//! The driver of guests, as the agent sees it: [`MachineRunner`](super::MachineRunner) runs real ones, [`super::memory`] imagines them.
//!
//! Observations ([`Guests::observe`], [`Guests::state`], [`Guests::list`], [`Guests::disks`]) start, end and remove nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use evroc_vmm::{GuestState, Offers};
use futures::stream::BoxStream;
use jiff::Timestamp;

use super::devices::{Change, GuestDisk};
use super::error::MachineError;
use super::{AcceleratorKind, MachineConfig, Nic};
use crate::io::BoxDuplex;
use crate::shim::Exit;

/// Runs guests on a host. All methods may be called at any time; [`super::owner`] sees to it that those that change a machine do not
/// overlap for one machine.
#[async_trait]
pub trait Guests: Send + Sync + std::fmt::Debug + 'static {
    /// Observes a machine on this host. An error means that the observation failed, and nothing else.
    async fn observe(&self, uid: &str) -> Result<ObservedMachine, MachineError>;

    /// Returns the state of the guest in a running machine's hypervisor.
    async fn state(&self, uid: &str) -> Result<GuestState, MachineError>;

    /// Starts a machine, or finds that it runs. After an error nothing of it runs, unless [`Self::observe`] finds it.
    async fn start(&self, config: &MachineConfig, nic: Option<Nic>) -> Result<Run, MachineError>;

    /// Requests the guest to power off and waits for `grace` (zero: no request), then ends it. `None` if it never ran. The future may
    /// be dropped and the stop requested again.
    async fn stop(&self, uid: &str, grace: Duration) -> Result<Option<Stopped>, MachineError>;

    /// Ends a hypervisor that lost its shim, in good order where it still listens.
    async fn end_orphan(&self, uid: &str) -> Result<(), MachineError>;

    /// Lets a guest go on that the hypervisor has paused, if the cause is over. Whether it tried.
    async fn resume(&self, uid: &str) -> Result<bool, MachineError>;

    /// Stops executing a guest, until [`Self::resume`].
    async fn pause(&self, uid: &str) -> Result<(), MachineError>;

    /// Presses the reset button of a guest.
    async fn reset(&self, uid: &str) -> Result<(), MachineError>;

    /// Removes every trace of a machine; volumes stay. The last run's log is kept for [`Log::Previous`] of its virtual machine.
    async fn remove(&self, uid: &str) -> Result<(), MachineError>;

    /// Uids of all machines of which any piece is on this host.
    async fn list(&self) -> Result<BTreeSet<String>, MachineError>;

    /// Records that the API has deleted a machine, across restarts of the agent: its leftovers may be removed.
    async fn mark_deleted(&self, uid: &str) -> Result<(), MachineError>;

    /// Whether that was noted.
    async fn is_deleted(&self, uid: &str) -> Result<bool, MachineError>;

    /// The volumes that a running guest has as disks.
    async fn disks(&self, uid: &str) -> Result<Vec<GuestDisk>, MachineError>;

    /// Carries out one change at a running guest.
    async fn change_disk(&self, uid: &str, change: &Change) -> Result<(), MachineError>;

    /// Streams the events of the present run from now on; the last event is [`GuestChange::Ended`].
    async fn changes(&self, uid: &str) -> Result<BoxStream<'static, GuestChange>, MachineError>;

    /// Attaches to the serial console.
    async fn console(&self, uid: &str, replay_bytes: usize) -> Result<BoxDuplex, MachineError>;

    /// The last bytes of a serial log; `None` if there is none.
    async fn serial_log(&self, log: Log<'_>, tail_bytes: u64) -> Result<Option<Vec<u8>>, MachineError>;

    /// The hardware that new guests can have.
    async fn offers(&self, accelerator: AcceleratorKind) -> Result<Offers, MachineError>;
}

/// A serial log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log<'a> {
    /// The log of a machine, by its uid.
    Machine(&'a str),
    /// The log of the run before the present one, by the uid of the virtual machine.
    Previous(&'a str),
}

/// The observed state of a machine on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedMachine {
    /// Nothing, or it was never started completely.
    Absent,
    /// Its hypervisor and its shim live.
    Running(Run),
    /// Its shim was killed; the reason is for people.
    Orphaned(String),
    /// It has ended: this is the record of its end.
    Ended(Exit),
}

/// One run of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Differs from that of every other run on this host, also of the same machine.
    pub id: RunId,
    /// When the hypervisor was started.
    pub started_at: Timestamp,
}

/// Identifies one run: an observation of another run is no evidence about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RunId(pub u64);

/// How a machine was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopManner {
    /// It had ended before.
    AlreadyEnded,
    /// The guest powered itself off on request.
    PoweredOff,
    /// The guest did not, and the hypervisor was ordered to end.
    Quit,
    /// The guest could not react: the hypervisor did not execute it, and resuming it did not help.
    Paused,
    /// The hypervisor did not end either, and was killed.
    Killed,
}

/// The end of a machine that was stopped.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// How.
    pub manner: StopManner,
    /// The exit record of its shim.
    pub exit: Exit,
}

/// Something that happened to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestChange {
    /// The guest reboots.
    Reset,
    /// Its state may have changed: look.
    StateChanged,
    /// The hypervisor ended, or lost its shim: look.
    Ended,
}
