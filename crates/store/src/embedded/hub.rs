//! Who watches: a bounded queue for each watcher that has caught up. The writer never waits for any of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::lock;
use crate::contract::{Batch, Change, Event, KeyRange, KeyValue, Previous, Revision};
use crate::error::StoreError;

/// Batches that wait for a watcher at most. Lower closes watchers in a burst (one group commit brings up to 1,024
/// batches at once); higher lets one stuck watcher hold more memory.
pub(super) const QUEUE_BATCHES: usize = 8 * 1024;
/// Bytes of values that wait for a watcher at most. Watchers share the values, so only the slowest one costs memory.
const QUEUE_BYTES: usize = 64 << 20;

/// A change as the writer made it.
pub(super) struct Published {
    pub key: Bytes,
    /// `None` for a delete.
    pub item: Option<KeyValue>,
    pub previous: Option<PreviousRow>,
}

/// Where the state before a change is found.
pub(super) struct PreviousRow {
    pub row: super::index::RowId,
    /// Known without a read if the same group of commits wrote it.
    pub value: Option<Bytes>,
}

/// The changes of one revision.
pub(super) struct PublishedRevision {
    pub revision: Revision,
    pub changes: Vec<Published>,
}

/// All watchers that have caught up.
pub(super) struct Hub {
    revision: Revision,
    is_open: bool,
    next_id: u64,
    watchers: HashMap<u64, Watcher>,
}

struct Watcher {
    range: KeyRange,
    previous_values: bool,
    /// Everything up to here was seen before this watcher joined.
    after: Revision,
    queue: Arc<Queue>,
}

impl Hub {
    pub fn new(revision: Revision) -> Self {
        Hub { revision, is_open: true, next_id: 0, watchers: HashMap::new() }
    }

    /// Up to which revision watchers have been told everything.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Adds a watcher that gets everything after both `after` and the hub's revision.
    pub fn join(&mut self, range: KeyRange, previous_values: bool, after: Revision) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        if !self.is_open {
            queue.close(None);
            return queue;
        }
        self.next_id += 1;
        let watcher = Watcher { range, previous_values, after, queue: queue.clone() };
        self.watchers.insert(self.next_id, watcher);
        queue
    }

    /// Hands a group of revisions to all watchers. `read_previous` fetches a value for the watchers that want it.
    pub fn publish(
        &mut self,
        revisions: &[PublishedRevision],
        newest: Revision,
        mut read_previous: impl FnMut(&Bytes, &PreviousRow) -> Result<Bytes, StoreError>,
    ) {
        self.revision = newest;
        // A queue that only the hub knows has lost its stream.
        self.watchers.retain(|_, watcher| Arc::strong_count(&watcher.queue) > 1);
        if self.watchers.is_empty() {
            return;
        }
        for published in revisions {
            self.publish_revision(published, &mut read_previous);
        }
        for watcher in self.watchers.values() {
            watcher.queue.mark(newest.max(watcher.after));
        }
    }

    fn publish_revision(
        &mut self,
        published: &PublishedRevision,
        read_previous: &mut impl FnMut(&Bytes, &PreviousRow) -> Result<Bytes, StoreError>,
    ) {
        // Built once each and shared by all watchers that want the same.
        let mut plain: Option<Arc<[Event]>> = None;
        let mut full: Option<Arc<[Event]>> = None;
        let mut closed = Vec::new();
        for (id, watcher) in &self.watchers {
            if published.revision <= watcher.after {
                continue;
            }
            let matching = published.changes.iter().filter(|change| watcher.range.contains(&change.key)).count();
            if matching == 0 {
                continue;
            }
            let whole = matching == published.changes.len();
            let shared = if watcher.previous_values { &mut full } else { &mut plain };
            let events = match shared {
                Some(events) if whole => Ok(events.clone()),
                _ => published
                    .changes
                    .iter()
                    .filter(|change| watcher.range.contains(&change.key))
                    .map(|change| event(change, published.revision, watcher.previous_values, read_previous))
                    .collect::<Result<Arc<[Event]>, StoreError>>(),
            };
            let events = match events {
                Ok(events) => events,
                Err(error) => {
                    watcher.queue.close(Some(error));
                    closed.push(*id);
                    continue;
                }
            };
            if whole {
                *shared = Some(events.clone());
            }
            let batch = Batch { revision: published.revision, events };
            if !watcher.queue.push(batch) {
                closed.push(*id);
            }
        }
        for id in closed {
            self.watchers.remove(&id);
        }
    }

    /// Ends all watches.
    pub fn close(&mut self) {
        self.is_open = false;
        for (_, watcher) in self.watchers.drain() {
            watcher.queue.close(None);
        }
    }
}

fn event(
    change: &Published,
    revision: Revision,
    previous_values: bool,
    read_previous: &mut impl FnMut(&Bytes, &PreviousRow) -> Result<Bytes, StoreError>,
) -> Result<Event, StoreError> {
    let previous = match &change.previous {
        None => None,
        Some(previous) => Some(Previous {
            mod_revision: previous.row.revision(),
            value: match (&previous.value, previous_values) {
                (_, false) => None,
                (Some(value), true) => Some(value.clone()),
                (None, true) => Some(read_previous(&change.key, previous)?),
            },
        }),
    };
    Ok(Event {
        change: match &change.item {
            Some(item) => Change::Put(item.clone()),
            None => Change::Delete { key: change.key.clone(), revision },
        },
        previous,
    })
}

/// What waits for one watcher.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<QueueInner>,
    filled: Notify,
}

#[derive(Default)]
struct QueueInner {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// The newest revision of any batch that was queued.
    seen: Revision,
    /// Set once: how the stream ends after what is queued.
    end: Option<Option<StoreError>>,
}

impl Queue {
    /// Appends a batch; returns false if the watcher is too slow and was closed.
    fn push(&self, batch: Batch) -> bool {
        let mut inner = lock(&self.inner);
        let size = weight(&batch);
        if inner.batches.len() >= QUEUE_BATCHES || (inner.bytes + size > QUEUE_BYTES && !inner.batches.is_empty()) {
            let seen = inner.seen;
            inner.end.get_or_insert(Some(StoreError::Lagged { seen, queue: QUEUE_BATCHES }));
            drop(inner);
            self.filled.notify_one();
            return false;
        }
        inner.bytes += size;
        inner.seen = batch.revision;
        inner.batches.push_back(batch);
        drop(inner);
        self.filled.notify_one();
        true
    }

    /// Tells the watcher that it has seen everything up to `revision`.
    pub fn mark(&self, revision: Revision) {
        let mut inner = lock(&self.inner);
        if inner.end.is_some() || inner.batches.back().is_some_and(|last| last.revision >= revision) {
            return;
        }
        inner.seen = revision;
        let mark = Batch { revision, events: Arc::new([]) };
        match inner.batches.back_mut() {
            Some(last) if last.is_progress_mark() => *last = mark,
            _ => inner.batches.push_back(mark),
        }
        drop(inner);
        self.filled.notify_one();
    }

    /// Ends the stream after what is queued, with `error` or as closed.
    fn close(&self, error: Option<StoreError>) {
        lock(&self.inner).end.get_or_insert(error);
        self.filled.notify_one();
    }

    /// The next batch; the error that the watch ended with; `None` when it ended because the store was closed.
    pub async fn next(&self) -> Option<Result<Batch, StoreError>> {
        loop {
            {
                let mut inner = lock(&self.inner);
                if let Some(batch) = inner.batches.pop_front() {
                    inner.bytes -= weight(&batch);
                    return Some(Ok(batch));
                }
                if let Some(end) = &mut inner.end {
                    return end.take().map(Err);
                }
            }
            // notify_one keeps a permit when nobody waits yet, so nothing is missed in between.
            self.filled.notified().await;
        }
    }
}

/// Bytes of the values that a batch keeps in memory.
fn weight(batch: &Batch) -> usize {
    let value = |event: &Event| match &event.change {
        Change::Put(item) => item.value.len(),
        Change::Delete { .. } => 0,
    };
    let previous = |event: &Event| {
        let value = event.previous.as_ref().and_then(|p| p.value.as_ref());
        value.map_or(0, Bytes::len)
    };
    batch.events.iter().map(|event| value(event) + previous(event)).sum()
}
