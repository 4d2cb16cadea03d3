//! The bounded queue of one watcher: a consumer that does not read costs a limited amount of memory and then gets an error, and
//! publishers never wait for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::contract::{Batch, Change, Event, Revision};
use crate::error::StoreError;

/// The maximum number of queued batches. Lower closes watchers in a burst (one group commit brings up to 1,024 batches at once);
/// higher lets one stuck watcher hold more memory.
const QUEUE_BATCHES: usize = 8 * 1024;
/// The maximum bytes of queued values. Watchers share the values, so only the slowest one costs memory.
const QUEUE_BYTES: usize = 64 << 20;

/// The queue of one watcher.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<QueueInner>,
    filled: Notify,
}

#[derive(Default)]
struct QueueInner {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// The newest revision of any batch that was queued.
    seen: Revision,
    /// Set once: the end of the stream after the queued batches.
    end: Option<Option<StoreError>>,
}

impl Queue {
    /// Appends a batch; returns false if the watcher is too slow and was closed.
    pub fn push(&self, batch: Batch) -> bool {
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

    /// Queues a progress mark: the watcher has seen everything up to `revision`.
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

    /// Ends the stream after the queued batches, with `error` or as closed.
    pub fn close(&self, error: Option<StoreError>) {
        lock(&self.inner).end.get_or_insert(error);
        self.filled.notify_one();
    }

    /// Returns the next batch, or the error with which the watch ended, or `None` if the store was closed.
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
            // notify_one stores a permit when there is no waiter, so that no notification is lost.
            self.filled.notified().await;
        }
    }
}

/// Returns the bytes of the values that a batch keeps in memory.
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

/// Locks the state. Nothing panics while the lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
