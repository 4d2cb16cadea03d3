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
//! The disks that have no volume yet get one on the host that the machine will be on. Volumes are provisional until the machine has been
//! created, and with it has its memory and its place in the placement group; a host starts no machine on a provisional volume. So a host
//! that turns out to be full is left again, and nothing that has data is ever removed.
//! Who writes what: this controller writes VirtualMachine.status, its finalizer, Machine.spec, and Volume.spec while it is provisional;
//! the host writes Machine.status. The private address is given once, claimed in the store, and stays for the VM's whole life.
//! Order of writes: status first, then the steps; a step that the status has to precede (address, epoch) writes it itself.

mod address;
mod binding;
mod block;
mod observe;
mod plan;
mod restart;
mod run;
mod status;
#[cfg(test)]
mod tests;
mod volumes;
mod zone;

pub use run::run;
