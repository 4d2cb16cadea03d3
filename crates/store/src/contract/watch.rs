//! Watches: the request, and the batches of events that it yields.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;

use super::data::{KeyRange, KeyValue, Revision};
use crate::error::Result;

/// The start and the contents of a watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// The keys to watch.
    pub range: KeyRange,
    /// The first change reported is the first one *after* this revision: the revision of the listing that the watch continues.
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
/// Having received a batch, a consumer has seen everything in its range up to and including `revision`. A batch without events is
/// a progress mark; marks arrive soon after other ranges were changed, and at once when the watch begins at the newest revision.
/// Revisions never go back; a mark may repeat a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// In the order of the transaction's operations; empty for a progress mark.
    pub events: std::sync::Arc<[Event]>,
}

impl Batch {
    /// Whether the batch only reports progress.
    #[must_use]
    pub fn is_progress_mark(&self) -> bool {
        self.events.is_empty()
    }
}

/// One change of one key. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The change.
    pub change: Change,
    /// The key's state before; `None` if it did not exist.
    pub previous: Option<Previous>,
}

impl Event {
    /// Returns the changed key.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        match &self.change {
            Change::Put(item) => &item.key,
            Change::Delete { key, .. } => key,
        }
    }
}

/// The change of a key.
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
    /// The revision that wrote it.
    pub mod_revision: Revision,
    /// Its value, if the watch requested previous values.
    pub value: Option<Bytes>,
}

/// A running watch; dropping it ends it. After an error the stream ends.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Batch>> + Send>>;
