//! Watchers that have caught up, each with a bounded queue. The writer never waits for them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::contract::{Batch, Change, Event, KeyRange, KeyValue, Previous, Revision};
use crate::error::StoreError;
use crate::queue::Queue;

/// A change as the writer publishes it.
pub(super) struct Published {
    pub key: Bytes,
    /// `None` for a delete.
    pub item: Option<KeyValue>,
    pub previous: Option<PreviousRow>,
}

/// The location of the state before a change.
pub(super) struct PreviousRow {
    pub row: super::index::RowId,
    /// The value, if the same group wrote it, so that no read is needed.
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
    /// The revision up to which the watcher had seen everything when it joined.
    after: Revision,
    queue: Arc<Queue>,
}

impl Hub {
    pub fn new(revision: Revision) -> Self {
        Hub { revision, is_open: true, next_id: 0, watchers: HashMap::new() }
    }

    /// The revision up to which watchers have received everything.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Adds a watcher that receives everything after both `after` and the hub's revision.
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

    /// Publishes a group of revisions to all watchers. `read_previous` reads previous values for watchers that request them.
    pub fn publish(
        &mut self,
        revisions: &[PublishedRevision],
        newest: Revision,
        mut read_previous: impl FnMut(&Bytes, &PreviousRow) -> Result<Bytes, StoreError>,
    ) {
        self.revision = newest;
        // A queue that only the hub references has lost its stream.
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
        // Events are built once and shared by all watchers with the same options.
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
