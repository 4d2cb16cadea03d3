//! VirtualMachine -> Machine.
//!
//! ```text
//!  Creating ─▶ WaitingForVolumeBinding ─▶ Provisioning ─▶ Starting ─▶ Running ──────────────▶ Stopping ─▶ Stopped
//!                │ ErrorPvcNotFound            │ ErrorUnschedulable      │ guest powered off     (running: false)
//!                │ DataVolumeError             │ ProvisioningFailed      ▼
//!                                                                CrashLoopBackOff ─▶ Starting
//! ```
//! A machine exists exactly while the VM should run. The Machine is the only source for whether a VM runs.
//! A Machine is one incarnation, `<vm>-<epoch>`: the epoch is a counter in VirtualMachine.status that is raised by compare-and-set
//! before each incarnation is created, and the store accepts a new one only after the one before has been removed.
//! Who writes what: this controller writes VirtualMachine.status, its finalizer, and Machine.spec; the host writes
//! Machine.status. The private address is given once, claimed in the store, and stays for the VM's whole life.
//! Order of writes: status first, then the steps; a step that the status has to precede (address, epoch) writes it itself.

mod address;
mod block;
mod observe;
mod plan;
mod restart;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub use run::run;
