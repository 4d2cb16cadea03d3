//! What can go wrong in a store, whatever the backend.

use bytes::Bytes;
use thiserror::Error;

use crate::contract::{LeaseId, Revision};

/// A failed store operation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The revision's history is gone; the caller lists again.
    #[error("revision {requested} is compacted: the oldest revision that can be read is {compacted_at}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        compacted_at: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {requested} is in the future: the store is at revision {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The watcher did not take its events fast enough; it watches again after the last batch that it received.
    #[error("watch was closed at revision {seen}: its consumer fell more than {queue} batches behind")]
    Lagged {
        /// Everything up to here was put in the watcher's queue.
        seen: Revision,
        /// How many batches wait for a consumer at most.
        queue: usize,
    },
    /// What was read is not what was written.
    #[error("stored value of key \"{}\" at revision {revision} is damaged: {detail}", key.escape_ascii())]
    Damaged {
        /// The key, as far as it is known.
        key: Bytes,
        /// The revision that wrote the value.
        revision: Revision,
        /// What did not match.
        detail: String,
    },
    /// The request contradicts the contract.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
    /// The request is beyond the backend's limits.
    #[error("{what} has {size}, at most {limit} are accepted")]
    TooLarge {
        /// What was measured, with its unit.
        what: &'static str,
        /// What was found.
        size: usize,
        /// What is accepted.
        limit: usize,
    },
    /// The lease has expired, was revoked or never existed.
    #[error("lease {id} does not exist: it has ended or was never granted")]
    LeaseNotFound {
        /// Which one.
        id: LeaseId,
    },
    /// The disk is full; nothing was applied and reads still work.
    #[error("disk is full, nothing was written: free some space where the store is kept ({detail})")]
    DiskFull {
        /// The engine's words.
        detail: String,
    },
    /// The store was closed or has stopped after a fatal error.
    #[error("store is closed")]
    Closed,
    /// The backend failed.
    #[error("store: {operation} failed")]
    Backend {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// A failure of the engine below.
    pub fn backend(operation: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        StoreError::Backend { operation, source: source.into() }
    }
}

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
