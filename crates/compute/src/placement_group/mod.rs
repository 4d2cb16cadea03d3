//! PlacementGroup: its members and its zone.
//!
//! ```text
//!   (new) ─▶ Ready ◀─▶ Pending (no host in its zone) ─▶ deleted: InUse while a VM names it ─▶ removed
//! ```
//! A virtual machine is placed by its own controller; a machine claims its host for its group in the store. This controller only shows
//! the group: it writes PlacementGroup.status and its finalizer. The zone of a group that names none is given once and stays.

mod observe;
mod plan;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use run::run;
