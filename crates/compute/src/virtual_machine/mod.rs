//! VirtualMachine -> Machine.
//!
//! ```text
//!  Creating ─▶ WaitingForVolumeBinding ─▶ Provisioning ─▶ Starting ─▶ Running ──────────────▶ Stopping ─▶ Stopped
//!                │ ErrorPvcNotFound            │ ErrorUnschedulable      │ guest powered off     (running: false)
//!                │ DataVolumeError             │ ProvisioningFailed      ▼
//!                                                                CrashLoopBackOff ─▶ Starting
//! ```
//! A machine exists exactly while the VM should run. Whoever wants to know whether a VM runs asks its Machine.
//! Who writes what: this controller writes VirtualMachine.status, its finalizer, and Machine.spec; the host writes
//! Machine.status. The private address is given once, claimed in the store, and stays for the VM's whole life.

mod block;
mod observe;
mod plan;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub use run::run;
