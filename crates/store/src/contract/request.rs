//! Requests to a store and their results: reads of ranges, and transactions.

use bytes::Bytes;

use super::data::{KeyRange, KeyValue, LeaseId, Revision};

/// The arguments of [`Store::range`](super::Store::range).
#[derive(Clone, Debug)]
pub struct RangeRequest {
    /// The keys to read.
    pub range: KeyRange,
    /// The maximum number of items; `None` for all.
    pub limit: Option<usize>,
    /// The revision to read at; `None` for the newest. All pages of one listing have the first page's revision.
    pub at: Option<Revision>,
    /// Whether to return [`RangePage::count`]; costs a walk over the keys of the range.
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

/// A page of the ordered map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    /// In the order of the keys.
    pub items: Vec<KeyValue>,
    /// Whether the range holds more keys after the last item.
    pub more: bool,
    /// The revision of the page.
    pub revision: Revision,
    /// The number of keys in the whole requested range (not only on this page), if requested.
    pub count: Option<u64>,
}

/// A condition for a transaction to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(Bytes),
    /// The key exists and was last written by this revision.
    Unchanged(Bytes, Revision),
    /// The key exists.
    Exists(Bytes),
    /// The key exists and has this value: for a transaction that follows one whose revision is not known yet.
    Holds(Bytes, Bytes),
}

impl Condition {
    /// Returns the key of the condition.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match self {
            Condition::Absent(key)
            | Condition::Unchanged(key, _)
            | Condition::Exists(key)
            | Condition::Holds(key, _) => key,
        }
    }

    /// Returns the size of the value that the condition names.
    #[must_use]
    pub(crate) fn value_bytes(&self) -> usize {
        match self {
            Condition::Holds(_, value) => value.len(),
            Condition::Absent(_) | Condition::Unchanged(..) | Condition::Exists(_) => 0,
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
    /// Writes a key without a lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Operation::Put { key: key.into(), value: value.into(), lease: None }
    }

    /// Removes a key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Operation::Delete { key: key.into() }
    }

    /// Returns the key that the operation changes.
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

/// The outcome of a transaction.
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
        /// The position in [`Txn::conditions`] of the condition that did not hold.
        index: usize,
        /// The state of that condition's key at `revision`; `None` if it does not exist.
        current: Option<KeyValue>,
        /// The store's revision when the conditions were checked.
        revision: Revision,
    },
}

impl TxnOutcome {
    /// Returns the revision if the transaction was applied.
    #[must_use]
    pub fn committed(&self) -> Option<Revision> {
        match self {
            TxnOutcome::Committed { revision } => Some(*revision),
            TxnOutcome::ConditionFailed { .. } => None,
        }
    }
}
