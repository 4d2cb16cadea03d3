//! Disk: what can be made of it, and the end of its Volume.
//!
//! ```text
//!             image known, large enough             its first VM runs             host made it
//!   (new) ─────────────────────────────▶ Ready ─────────────────────▶ Provisioning ───────────▶ Ready
//!      │ image unknown, too small, no such zone                                                   │ deleted
//!      ▼                                                                                          ▼
//!   DiskImageNotFound, DiskTooSmall, Pending                           in use by a VM: waits ─▶ volume deleted ─▶ removed
//! ```
//! A disk has no host, and no Volume, until a virtual machine that should run names it: the controller of virtual machines chooses one host
//! for all of them together. Clients wait for a disk to be Ready before they make its virtual machine, so it is that before it has a host.
//! Who writes what: this controller writes Disk.status and Disk's finalizer, and deletes the Volume with its Disk; the controller of virtual
//! machines creates Volumes, and removes those that were never used; the host writes Volume.status.

mod contents;
mod observe;
mod plan;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use contents::contents;
pub(crate) use run::run;
