//! Reasons of conditions that more than one controller of this crate knows.

/// The reason of a disk or a placement group in whose zone there is no host: looked at again when a host comes.
pub(crate) const PENDING: &str = "Pending";
