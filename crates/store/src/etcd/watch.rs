//! One watch: a stream from etcd, read by a task of its own into a bounded queue.
//!
//! The stream starts at the consumer's revision, which is dropped here, so that etcd itself refuses revisions before a
//! compaction. etcd before 3.4.34 and 3.5.16 loses deletions of the revision at which it is compacted; if a watch has not reached
//! that revision yet, the loss is detected as a gap, because every revision changes some key.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use tonic::{Status, Streaming};

use super::error::{Refusal, ServerStatus, failed, refusal};
use super::{Inner, all_of_etcd, header, proto};
use crate::contract::{Batch, Change, Event, KeyRange, Previous, Result, Revision, WatchRequest, WatchStream};
use crate::error::StoreError;
use crate::queue::Queue;

const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The revision up to which a watch has received everything.
pub(super) type Position = tokio::sync::watch::Sender<Revision>;

struct Watch {
    inner: Arc<Inner>,
    range: KeyRange,
    previous_values: bool,
    /// The etcd revision up to which everything was received.
    seen: i64,
    position: Arc<Position>,
    queue: Arc<Queue>,
}

/// Ends the task when the consumer drops its stream.
struct Reader(tokio::task::JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts a watch; returns an error if the revision cannot be watched.
pub(super) async fn begin(inner: Arc<Inner>, request: WatchRequest) -> Result<WatchStream> {
    let after = inner.readable(Some(request.after)).await?;
    let newest = match inner.probe(after).await {
        Ok(newest) => newest,
        Err(status) => return Err(inner.read_failed("begin a watch", request.after, status).await),
    };
    let stream = open(&inner, after, request.after).await?;
    let queue = Arc::new(Queue::default());
    if newest <= after {
        queue.mark(request.after);
    }
    let position = Arc::new(Position::new(request.after));
    inner.positions.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&position));
    let watch = Watch {
        range: request.range,
        previous_values: request.previous_values,
        seen: after,
        position,
        queue: queue.clone(),
        inner,
    };
    let reader = Reader(tokio::spawn(watch.run(stream)));
    Ok(Box::pin(futures::stream::unfold((queue, Some(reader)), |(queue, reader)| async move {
        reader.as_ref()?;
        // An error is the last item.
        match queue.next().await {
            Some(Ok(batch)) => Some((Ok(batch), (queue, reader))),
            Some(Err(error)) => Some((Err(error), (queue, None))),
            None => Some((Err(StoreError::Closed), (queue, None))),
        }
    })))
}

/// Opens a stream of everything from `after` on at one member after the other.
async fn open(inner: &Inner, after: i64, requested: Revision) -> Result<Streaming<proto::WatchResponse>> {
    let (key, range_end) = all_of_etcd();
    let create = proto::WatchCreateRequest { key, range_end, start_revision: after, prev_kv: true };
    let question = proto::WatchRequest { create: Some(create) };
    let mut attempts = 0;
    loop {
        // The watch lasts while the request stream is open.
        let questions = futures::stream::iter([question.clone()]).chain(futures::stream::pending());
        let opened = async {
            let mut stream: Streaming<proto::WatchResponse> = inner.client.stream(WATCH, questions).await?;
            let first = stream.message().await?;
            Ok((stream, first.ok_or_else(|| Status::unavailable("the watch ended before it began"))?))
        };
        match opened.await {
            Ok((_, first)) if first.canceled => return Err(cancelled(inner, requested, &first)),
            Ok((stream, first)) if first.created => return Ok(stream),
            Ok(_) => return Err(failed("begin a watch", Status::internal("the first answer is not the expected one"))),
            Err(status) if refusal(&status) == Refusal::Compacted => return Err(inner.is_compacted(requested).await),
            Err(status) => {
                attempts += 1;
                if attempts > inner.client.members() {
                    return Err(failed("begin a watch", status));
                }
            }
        }
    }
}

/// Returns the reason why etcd has ended a watch.
fn cancelled(inner: &Inner, requested: Revision, response: &proto::WatchResponse) -> StoreError {
    if response.compact_revision > 0 {
        let compacted_at = inner.keys.revision(response.compact_revision);
        return StoreError::Compacted { requested, compacted_at };
    }
    let reason = if response.cancel_reason.is_empty() { "no reason given" } else { &response.cancel_reason };
    StoreError::backend("watch", ServerStatus(Status::aborted(format!("watch was cancelled: {reason}"))))
}

impl Watch {
    async fn run(mut self, mut stream: Streaming<proto::WatchResponse>) {
        let mut closed = self.inner.closed.subscribe();
        let end = loop {
            let message = tokio::select! {
                _ = closed.wait_for(|closed| *closed) => break None,
                message = stream.message() => message,
            };
            let taken = match message {
                Ok(Some(response)) if response.canceled => Err(cancelled(&self.inner, self.position(), &response)),
                Ok(Some(response)) => self.take(response).await,
                Ok(None) => Err(failed("watch", Status::unavailable("etcd ended the watch"))),
                Err(status) => Err(failed("watch", status)),
            };
            match taken {
                Ok(true) => {}
                // Too slow; the queue has already been ended.
                Ok(false) => return,
                Err(error) => break Some(error),
            }
        };
        self.queue.close(end);
    }

    fn position(&self) -> Revision {
        *self.position.borrow()
    }

    /// Queues the contents of a message; `Ok(false)` if the consumer is too slow.
    async fn take(&mut self, response: proto::WatchResponse) -> Result<bool> {
        let mut revisions: BTreeMap<i64, Vec<proto::Event>> = BTreeMap::new();
        for event in response.events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if revision > self.seen {
                revisions.entry(revision).or_default().push(event);
            }
        }
        tracing::trace!(seen = self.seen, header = header(response.header), revisions = revisions.len(), "watch");
        for (number, changes) in revisions {
            if number != self.seen + 1 {
                return Err(self.inner.is_compacted(self.position()).await);
            }
            let revision = self.inner.keys.revision(number);
            let mut events = Vec::new();
            for change in changes {
                match self.event(change, revision)? {
                    Translated::Event(event) => events.push(event),
                    Translated::NotOurs => {}
                    Translated::PreviousIsGone => return Err(self.inner.is_compacted(self.position()).await),
                }
            }
            if !events.is_empty() && !self.queue.push(Batch { revision, events: events.into() }) {
                return Ok(false);
            }
            self.seen = number;
        }
        let revision = self.inner.keys.revision(self.seen);
        self.queue.mark(revision);
        self.position.send_replace(revision);
        Ok(true)
    }

    fn event(&self, change: proto::Event, revision: Revision) -> Result<Translated> {
        let keys = &self.inner.keys;
        let Some(kv) = change.kv else { return Ok(Translated::NotOurs) };
        let Some(key) = keys.strip(&kv.key).filter(|key| self.range.contains(key)) else {
            return Ok(Translated::NotOurs);
        };
        let is_delete = change.kind == i32::from(proto::EventType::Delete);
        let existed = is_delete || kv.create_revision != kv.mod_revision;
        let previous = match &change.prev_kv {
            _ if !existed => None,
            None => return Ok(Translated::PreviousIsGone),
            Some(before) => Some(self.previous(&key, before)?),
        };
        let change = if is_delete { Change::Delete { key, revision } } else { Change::Put(keys.item(&kv)?) };
        Ok(Translated::Event(Event { change, previous }))
    }

    fn previous(&self, key: &Bytes, before: &proto::KeyValue) -> Result<Previous> {
        let mod_revision = self.inner.keys.revision(before.mod_revision);
        let value = match self.previous_values {
            true => Some(self.inner.keys.open(key, &before.value, mod_revision)?),
            false => None,
        };
        Ok(Previous { mod_revision, value })
    }
}

/// The meaning of an etcd event for a watch.
enum Translated {
    Event(Event),
    /// Another key.
    NotOurs,
    /// A compaction has removed the previous state before etcd read it.
    PreviousIsGone,
}
