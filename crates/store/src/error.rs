//! Errors of a store, for all backends.

use bytes::Bytes;
use thiserror::Error;

use crate::contract::{LeaseId, Revision};

/// A failed store operation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The revision's history is compacted; the caller lists again.
    #[error("revision {requested} is compacted: the oldest revision that can be read is {compacted_at}")]
    Compacted {
        /// The requested revision.
        requested: Revision,
        /// The oldest revision that can be read.
        compacted_at: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {requested} is in the future: the store is at revision {current}")]
    FutureRevision {
        /// The requested revision.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The watcher did not read its events fast enough; it watches again after the last batch that it received.
    #[error("watch was closed at revision {seen}: its consumer fell more than {queue} batches behind")]
    Lagged {
        /// The revision up to which everything was queued.
        seen: Revision,
        /// The maximum number of queued batches.
        queue: usize,
    },
    /// The stored data differs from the written data.
    #[error("stored value of key \"{}\" at revision {revision} is damaged: {detail}", key.escape_ascii())]
    Damaged {
        /// The key, if known.
        key: Bytes,
        /// The revision that wrote the value.
        revision: Revision,
        /// The mismatch.
        detail: String,
    },
    /// The request violates the contract.
    #[error("invalid request: {0}")]
    InvalidRequest(String),
    /// The request exceeds the backend's limits.
    #[error("{what} has {size}, at most {limit} are accepted")]
    TooLarge {
        /// The measured quantity, with its unit.
        what: &'static str,
        /// The size found.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The lease has expired, was revoked or never existed.
    #[error("lease {id} does not exist: it has ended or was never granted")]
    LeaseNotFound {
        /// The lease's id.
        id: LeaseId,
    },
    /// The disk is full; nothing was applied and reads still work.
    #[error("disk is full, nothing was written: free some space where the store is kept ({detail})")]
    DiskFull {
        /// The engine's message.
        detail: String,
    },
    /// The store was closed or has stopped after a fatal error.
    #[error("store is closed")]
    Closed,
    /// The backend failed.
    #[error("store: {operation} failed")]
    Backend {
        /// The operation.
        operation: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Returns an error for a failure of the underlying engine.
    pub fn backend(operation: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        StoreError::Backend { operation, source: source.into() }
    }
}

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
