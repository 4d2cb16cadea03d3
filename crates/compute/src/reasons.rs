//! Reasons of conditions that more than one controller of this crate knows.

/// The reason of a disk for which no host is ready, or none in its zone.
pub(crate) const PENDING: &str = "Pending";
/// The reason of a disk for which no host has room.
pub(crate) const UNSCHEDULABLE: &str = "Unschedulable";
/// The reasons of disks that are looked at again when a host may have room.
pub(crate) const WAITS_FOR_ROOM: [&str; 2] = [PENDING, UNSCHEDULABLE];
