//! The contract between the API server and the backend that keeps its state.
//!
//! A store is an ordered map from key to value with one revision counter for the whole store, as in etcd. Every transaction that
//! changes something takes exactly one new revision. The store never interprets a value.
//!
//! Guarantees of every backend (checked by the suite in [`crate::contract_tests`]):
//! - **Durable**: a transaction that returned [`TxnOutcome::Committed`] survives a crash of process and machine.
//! - **Linearisable**: transactions take effect in the order of their revisions; [`Store::revision`] and reads without
//!   `at` see every transaction that was acknowledged before they were called.
//! - **Complete watches**: a watch yields every change in its range after its start, in order, one [`Batch`] per revision, or
//!   ends with an error that states the reason ([`StoreError::Compacted`], [`StoreError::Lagged`]).
//! - **No silent damage**: a value that cannot be verified is [`StoreError::Damaged`], never skipped.

mod data;
mod request;
mod watch;

use std::time::Duration;

use async_trait::async_trait;

pub use crate::error::Result;
#[cfg(doc)]
use crate::error::StoreError;
pub use data::{KeyRange, KeyValue, Lease, LeaseId, Revision};
pub use request::{Condition, Operation, RangePage, RangeRequest, Txn, TxnOutcome};
pub use watch::{Batch, Change, Event, Previous, WatchRequest, WatchStream};

/// The limits of a backend; larger requests are refused with [`StoreError::TooLarge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in a key.
    pub key_bytes: usize,
    /// Bytes in a value.
    pub value_bytes: usize,
    /// Operations in a transaction, and conditions in a transaction.
    pub operations: usize,
    /// Bytes of all keys and values of a transaction.
    pub txn_bytes: usize,
}

/// A revisioned, ordered, durable map with watch. The module documentation has the guarantees of all backends.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns the newest revision, at least that of every transaction acknowledged before the call.
    async fn revision(&self) -> Result<Revision>;

    /// Returns the key at a revision (`None`: the newest), and the revision that was read.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::FutureRevision`], [`StoreError::Damaged`].
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<(Option<KeyValue>, Revision)>;

    /// Returns a range of keys in order.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn range(&self, request: RangeRequest) -> Result<RangePage>;

    /// Applies a transaction. After `Ok(Committed)` it is on disk.
    ///
    /// # Errors
    /// [`StoreError::InvalidRequest`], [`StoreError::TooLarge`], [`StoreError::LeaseNotFound`]: nothing was applied.
    /// [`StoreError::Closed`] and [`StoreError::Backend`]: it is unknown whether it was applied.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome>;

    /// Follows the changes in a range.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if changes after the requested revision are compacted, [`StoreError::FutureRevision`] if the
    /// revision has not happened yet.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream>;

    /// Removes states that were superseded at `at` or before: afterwards reads at revisions below `at` and watches after
    /// revisions below `at` fail with [`StoreError::Compacted`]; everything from `at` on stays readable. An `at` that is already
    /// compacted changes nothing.
    ///
    /// # Errors
    /// [`StoreError::FutureRevision`].
    async fn compact(&self, at: Revision) -> Result<()>;

    /// Returns the revision of the last compaction: the oldest that can be read.
    async fn compacted_at(&self) -> Result<Revision>;

    /// Grants a lease. It ends `ttl` after its last renewal; its keys are then deleted in one revision. Leases survive a restart,
    /// which renews them.
    async fn lease_grant(&self, ttl: Duration) -> Result<Lease>;

    /// Renews a lease.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] if it has ended.
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease>;

    /// Ends a lease now and deletes its keys in one revision. Returns the store's revision after that.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] if it has ended.
    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision>;

    /// Returns a lease as it was granted.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] if it has ended.
    async fn lease(&self, id: LeaseId) -> Result<Lease>;

    /// Returns the approximate bytes of storage in use, including history, with a short delay.
    async fn used_bytes(&self) -> Result<u64>;

    /// Returns the limits of this backend.
    fn limits(&self) -> Limits;

    /// Completes earlier operations, then releases the state: watches end and later operations fail with [`StoreError::Closed`].
    async fn close(&self);
}
