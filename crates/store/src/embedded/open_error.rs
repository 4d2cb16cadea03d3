//! The reasons why a store cannot be opened.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::format::{APPLICATION_ID, FORMAT_VERSION};
use crate::contract::Revision;
use crate::error::StoreError;

/// The reason why a store could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("store {} is in use by process {holder}: stop it first, two processes cannot share a store", folder.display())]
    Locked {
        /// The store's folder.
        folder: PathBuf,
        /// The other process, if known.
        holder: String,
    },
    /// The database belongs to another program.
    #[error("{} is not a store of evroc (application id {found:#x}, expected {APPLICATION_ID:#x}): choose another folder", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
        /// Its application id.
        found: i32,
    },
    /// The state was written by another version of this program.
    #[error("store {} has format {found}, this version supports format {FORMAT_VERSION}: {advice}", path.display())]
    Format {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i32,
        /// The advice.
        advice: &'static str,
    },
    /// The store to create already exists.
    #[error("{} already holds a store: choose another folder, or move it away first", path.display())]
    Exists {
        /// The database.
        path: PathBuf,
    },
    /// The database ends before the newest acknowledged write.
    #[error(
        "store {} has lost acknowledged writes: it ends at revision {found}, but revision {acknowledged} was \
         acknowledged. Restore a backup, or remove the file `acknowledged` beside it to go on without them",
        path.display()
    )]
    LostWrites {
        /// The database.
        path: PathBuf,
        /// Its newest revision.
        found: Revision,
        /// The newest acknowledged revision.
        acknowledged: Revision,
    },
    /// The rows do not match the store's own count and checksum.
    #[error("store {} is damaged: {detail}. Restore a backup", path.display())]
    Inconsistent {
        /// The database.
        path: PathBuf,
        /// The mismatch.
        detail: String,
    },
    /// A row or the engine's structure is damaged.
    #[error("reading store {}", path.display())]
    Read {
        /// The database.
        path: PathBuf,
        /// The damage.
        #[source]
        source: StoreError,
    },
    /// The engine failed.
    #[error("{operation} {}", path.display())]
    Engine {
        /// The operation.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}
