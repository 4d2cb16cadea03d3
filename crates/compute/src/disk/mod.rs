//! Disk -> Volume.
//!
//! ```text
//!             image known, host found            host made it
//!   Pending ───────────────────────▶ Provisioning ───────────▶ Ready
//!      │ image unknown, too small                                 │ deleted
//!      ▼                                                          ▼
//!   DiskImageNotFound, DiskTooSmall      in use by a VM: waits ─▶ volume deleted ─▶ removed
//! ```
//! The disks of one virtual machine go to one host: a disk follows those that have a volume, and while none has, all of them are placed
//! together.
//! Who writes what: this controller writes Disk.status, Disk's finalizer and Volume.spec; the host writes Volume.status.

mod observe;
mod place;
mod plan;
mod run;
mod size;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use run::run;
