//! Disk -> Volume.
//!
//! ```text
//!             image known, host found            host made it
//!   Pending ───────────────────────▶ Provisioning ───────────▶ Ready
//!      │ image unknown, too small                                 │ deleted
//!      ▼                                                          ▼
//!   DiskImageNotFound, DiskTooSmall      in use by a VM: waits ─▶ volume deleted ─▶ gone
//! ```
//! Who writes what: this controller writes Disk.status, Disk's finalizer and Volume.spec; the host writes Volume.status.

mod observe;
mod plan;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub use run::run;
