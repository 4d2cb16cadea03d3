//! Unpacks image layers, in a process that is confined to the folder that it fills.
//!
//! A layer is a tenant's file: it is decompressed, parsed and written by a process of its own ([`confined`]), which sees nothing of
//! the host but the folder, has a user of its own, no network and hard limits. The agent ([`launch`]) passes the bytes in, reads one
//! line of JSON back and sets the attributes that only root may set ([`seal`]).
//!
//! ```text
//!  agent ── layer as it arrives ──▶ stdin  `evrocd unpack` ── decompress, hash ── [`archive`] ── [`tree`] ──▶ folder
//!        ◀─ Outcome as JSON ─────── stdout
//! ```
//!
//! Entries that can be absent without harm are left out: devices, FIFOs, sockets. A layer's statements about lower layers
//! (whiteouts in the style of aufs) become the form that overlayfs expects: a character device 0/0, or the attribute [`OPAQUE_XATTR`].

mod archive;
mod confined;
mod launch;
mod layer;
mod problem;
mod resolve;
mod tree;

use std::io;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

pub use confined::run;
pub(super) use launch::{Transferred, seal};
pub use launch::{UnpackLauncher, Unpacker};
pub use layer::unpack_layer;

/// The attribute that makes overlayfs hide a folder's lower layers.
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// The limits of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of its files, holes included, and of the archive itself.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// The free space of the disk, in bytes.
    pub room: u64,
}

/// The result of unpacking a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unpacked {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of its files, holes included.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Paths below the folder, in base64, of folders that hide what lower layers have there.
    pub opaque: Vec<String>,
}

/// The reason why a layer was not unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "message")]
pub enum UnpackError {
    /// The layer holds something that is not allowed, or is no archive.
    #[error("{0}")]
    Refused(String),
    /// The layer takes more than an image may.
    #[error("{0}")]
    TooLarge(String),
    /// The disk is full.
    #[error("{0}")]
    DiskFull(String),
    /// The layer cannot be read to its end: the transfer broke off, or it is damaged.
    #[error("{0}")]
    Unreadable(String),
    /// The host failed.
    #[error("{0}")]
    Host(String),
}

impl UnpackError {
    /// Whether only another image helps.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLarge(_))
    }

    /// Classifies an error of the host by its meaning for a second try.
    fn host(operation: &str, error: &io::Error) -> Self {
        let text = format!("{operation}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(text),
            _ => Self::Host(text),
        }
    }
}

/// The line that the confined process writes.
type Outcome = Result<Unpacked, UnpackError>;

#[cfg(test)]
mod tests;
