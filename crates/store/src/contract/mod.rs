//! The contract between the API server and whatever keeps its state.
//!
//! A store is an ordered map from key to value with one revision counter for the whole store, as in etcd. Every
//! transaction that changes something takes exactly one new revision. The store never looks into a value.
//!
//! What every backend promises (the suite in [`crate::contract_tests`] checks it):
//! - **Durable**: a transaction that returned [`TxnOutcome::Committed`] survives a crash of process and machine.
//! - **Linearisable**: transactions take effect in the order of their revisions; [`Store::revision`] and reads without
//!   `at` see every transaction that was acknowledged before they were called.
//! - **Complete watches**: a watch yields every change in its range after its start, in order, one [`Batch`] per
//!   revision, or ends with an error that says why ([`StoreError::Compacted`], [`StoreError::Lagged`]).
//! - **No silent damage**: a value that cannot be verified is [`StoreError::Damaged`], never skipped.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use crate::error::StoreError;

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The store's counter: 0 is the empty store, the first change takes 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a store that has never been written.
    pub const ZERO: Revision = Revision(0);

    /// The revision that follows.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Revision {
    fn from(number: u64) -> Self {
        Revision(number)
    }
}

/// Names a lease; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One key as it was at some revision. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// The value; may be empty.
    pub value: Bytes,
    /// The revision in which the key came to exist (again, after a delete).
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
    /// The lease that will delete the key when it ends.
    pub lease: Option<LeaseId>,
}

/// A half-open interval of keys: `start <= key < end`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key of the range; empty means from the beginning.
    pub start: Bytes,
    /// The first key after the range; `None` means up to the end.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        KeyRange { start: Bytes::new(), end: None }
    }

    /// `start <= key < end`.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        KeyRange { start: start.into(), end: Some(end.into()) }
    }

    /// Exactly one key.
    pub fn single(key: impl Into<Bytes>) -> Self {
        let start: Bytes = key.into();
        let end = successor(&start);
        KeyRange { start, end: Some(end) }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return KeyRange { start, end: Some(end.into()) };
            }
        }
        KeyRange { start, end: None }
    }

    /// The part of this range after `key`: where the next page of a listing begins.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        KeyRange { start: successor(key), end: self.end.clone() }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// The smallest key that is greater than `key`.
fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// What [`Store::range`] shall return.
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many items; `None` for all of them.
    pub limit: Option<usize>,
    /// As of which revision; `None` for the newest. All pages of one listing name the first page's revision.
    pub at: Option<Revision>,
    /// Whether [`RangePage::count`] is wanted; costs a walk over the keys of the range.
    pub count: bool,
}

impl RangeRequest {
    /// Everything in `range`, as of now.
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        RangeRequest { range, limit: None, at: None, count: false }
    }

    /// Returns at most `limit` items.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Reads as of `revision`.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.at = Some(revision);
        self
    }

    /// Asks for the number of keys in the whole range.
    #[must_use]
    pub fn with_count(mut self) -> Self {
        self.count = true;
        self
    }
}

/// A piece of the ordered map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    /// In the order of the keys.
    pub items: Vec<KeyValue>,
    /// Whether the range holds more keys after the last item.
    pub more: bool,
    /// The revision that the page shows.
    pub revision: Revision,
    /// The number of keys in the whole requested range (not only on this page), if asked for.
    pub count: Option<u64>,
}

/// What must hold for a transaction to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(Bytes),
    /// The key exists and was last written by this revision.
    Unchanged(Bytes, Revision),
    /// The key exists.
    Exists(Bytes),
}

impl Condition {
    /// The key that the condition is about.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Condition::Absent(key) | Condition::Unchanged(key, _) | Condition::Exists(key) => key,
        }
    }
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a key. A key written without a lease is detached from the one it had.
    Put {
        /// The key; not empty.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// The lease to attach it to.
        lease: Option<LeaseId>,
    },
    /// Removes a key; nothing happens if it does not exist.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Operation {
    /// Writes a key that belongs to no lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Operation::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// Removes a key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Operation::Delete { key: key.into() }
    }

    /// The key that the operation changes.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => key,
        }
    }
}

/// If all conditions hold, all operations are applied in one revision; else nothing is.
///
/// No two operations may name the same key ([`StoreError::InvalidRequest`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Checked in order; the first that does not hold is reported.
    pub conditions: Vec<Condition>,
    /// Applied together.
    pub operations: Vec<Operation>,
}

impl Txn {
    /// An empty transaction, to be filled with [`Txn::when`] and [`Txn::then`].
    #[must_use]
    pub fn new() -> Self {
        Txn::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Adds an operation.
    #[must_use]
    pub fn then(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// Writes a key that must not exist yet.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Txn::new().when(Condition::Absent(key.clone())).then(Operation::put(key, value))
    }

    /// Replaces the value that `revision` wrote.
    pub fn update(key: impl Into<Bytes>, revision: Revision, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        Txn::new().when(Condition::Unchanged(key.clone(), revision)).then(Operation::put(key, value))
    }

    /// Removes the value that `revision` wrote.
    pub fn remove(key: impl Into<Bytes>, revision: Revision) -> Self {
        let key = key.into();
        Txn::new().when(Condition::Unchanged(key.clone(), revision)).then(Operation::delete(key))
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOutcome {
    /// It was applied and is on disk.
    Committed {
        /// The transaction's revision; the store's revision at that time if the transaction changed nothing (no
        /// operations, or only deletes of absent keys).
        revision: Revision,
    },
    /// Nothing was applied.
    ConditionFailed {
        /// Which condition did not hold (position in [`Txn::conditions`]).
        index: usize,
        /// The state of that condition's key at `revision`; `None` if it does not exist.
        current: Option<KeyValue>,
        /// The store's revision when the conditions were checked.
        revision: Revision,
    },
}

impl TxnOutcome {
    /// The revision if the transaction was applied.
    #[must_use]
    pub fn committed(&self) -> Option<Revision> {
        match self {
            TxnOutcome::Committed { revision } => Some(*revision),
            TxnOutcome::ConditionFailed { .. } => None,
        }
    }
}

/// Where a watch begins and what it reports.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The first change reported is the first one *after* this revision: name the revision of the listing that the
    /// watch continues.
    pub after: Revision,
    /// Whether events carry the previous value ([`Previous::value`]); costs a read per event.
    pub previous_values: bool,
}

impl WatchRequest {
    /// Changes in `range` after `after`, with previous values.
    #[must_use]
    pub fn new(range: KeyRange, after: Revision) -> Self {
        WatchRequest { range, after, previous_values: true }
    }

    /// Leaves previous values out: for consumers that keep the state themselves.
    #[must_use]
    pub fn without_previous_values(mut self) -> Self {
        self.previous_values = false;
        self
    }
}

/// Everything that one revision changed in the watched range. Cheap to clone.
///
/// Having received a batch, a consumer has seen everything in its range up to and including `revision`. A batch without
/// events is a progress mark and says only that; marks arrive soon after other ranges were changed, and at once when
/// the watch begins at the newest revision. Revisions never go back; a mark may repeat a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// In the order of the transaction's operations; empty for a progress mark.
    pub events: std::sync::Arc<[Event]>,
}

impl Batch {
    /// Whether the batch only tells how far the watch has come.
    #[must_use]
    pub fn is_progress_mark(&self) -> bool {
        self.events.is_empty()
    }
}

/// One change of one key. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// The key's state before; `None` if it did not exist.
    pub previous: Option<Previous>,
}

impl Event {
    /// The changed key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match &self.change {
            Change::Put(item) => &item.key,
            Change::Delete { key, .. } => key,
        }
    }
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written: created if `create_revision == mod_revision`, else replaced.
    Put(KeyValue),
    /// It was removed, by a transaction or with its lease.
    Delete {
        /// The key.
        key: Bytes,
        /// The revision that removed it.
        revision: Revision,
    },
}

/// A key before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The revision that had written it.
    pub mod_revision: Revision,
    /// Its value, if the watch asked for previous values.
    pub value: Option<Bytes>,
}

/// A running watch; dropping it ends it. After an error the stream ends.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Batch>> + Send>>;

/// A promise to delete keys unless it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lasts after being granted or kept alive.
    pub ttl: Duration,
}

/// What a backend accepts; beyond it, requests are refused with [`StoreError::TooLarge`].
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

/// A revisioned, ordered, durable map with watch. See the module for what all backends promise.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest revision, at least that of every transaction acknowledged before the call.
    async fn revision(&self) -> Result<Revision>;

    /// The key at a revision (`None`: the newest), and the revision that the answer shows.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::FutureRevision`], [`StoreError::Damaged`].
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<(Option<KeyValue>, Revision)>;

    /// A range of keys in order.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn range(&self, request: RangeRequest) -> Result<RangePage>;

    /// Applies a transaction. `Ok(Committed)` means that it is on disk.
    ///
    /// # Errors
    /// [`StoreError::InvalidRequest`], [`StoreError::TooLarge`], [`StoreError::LeaseNotFound`]: nothing was applied.
    /// [`StoreError::Closed`] and [`StoreError::Backend`]: it is unknown whether it was applied.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome>;

    /// Follows the changes in a range.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if changes after the requested revision are gone, [`StoreError::FutureRevision`] if
    /// the revision has not happened yet.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream>;

    /// Forgets what was superseded at `at` or before: afterwards reads at revisions below `at` and watches after
    /// revisions below `at` fail with [`StoreError::Compacted`]; everything from `at` on stays readable. An `at` that
    /// is already compacted changes nothing.
    ///
    /// # Errors
    /// [`StoreError::FutureRevision`].
    async fn compact(&self, at: Revision) -> Result<()>;

    /// The revision of the last compaction: the oldest that can be read.
    async fn compacted_at(&self) -> Result<Revision>;

    /// Makes a lease. It ends `ttl` after its last renewal; its keys are then deleted in one revision. Leases survive
    /// a restart, which renews them.
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

    /// A lease as it was granted.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] if it has ended.
    async fn lease(&self, id: LeaseId) -> Result<Lease>;

    /// Bytes of storage in use, history included; about, and a little behind.
    async fn used_bytes(&self) -> Result<u64>;

    /// What this backend accepts.
    fn limits(&self) -> Limits;

    /// Answers what was asked before, then lets go of the state: watches end and later operations fail with
    /// [`StoreError::Closed`].
    async fn close(&self);
}
