//! The reasons why an entry of a layer cannot be written.

use std::io;

use rustix::io::Errno;

/// The fault of an entry.
#[derive(Debug)]
pub(super) enum Problem {
    /// The host failed.
    Io(io::Error),
    /// Its data could not be read.
    Unreadable(io::Error),
    /// It is not allowed.
    Refused(&'static str),
    /// It is larger than the rest of the limit.
    TooLarge,
    /// It is larger than the free space of the disk.
    NoRoom,
}

impl From<Errno> for Problem {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}
