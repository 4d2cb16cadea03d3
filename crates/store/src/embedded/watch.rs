//! One watch: reads from the database until it has caught up, then from its queue in the hub.
//!
//! ```text
//!   Behind ──(less than JOIN_GAP revisions missing: joins the hub, whose queue collects from here on)──> Joining
//!     │ reads a piece of history                                    reads the rest of the history │
//!     └──> Behind                                                                                 v
//!   Ended <──(lagged, damaged, closed)────────────────────────────────────────────────────────── Live
//! ```
//! While it is behind, nothing is queued: history is read on demand, so a slow consumer costs no memory. If compaction overtakes
//! it, the watch ends with [`StoreError::Compacted`].

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::index::RowId;
use super::rows::{self, Head};
use super::{Shared, lock, read_lock};
use crate::contract::{
    Batch, Change, Event, KeyRange, KeyValue, Previous, Result, Revision, WatchRequest, WatchStream,
};
use crate::error::StoreError;
use crate::queue::Queue;

/// A watcher joins the hub when fewer revisions are missing than this: the queue must hold what is written while it reads the
/// gap.
const JOIN_GAP: u64 = 1000;
/// Revisions read at once.
const PIECE_REVISIONS: u64 = 1000;
/// The bytes of values after which a piece ends early.
const PIECE_BYTES: usize = 4 << 20;

enum State {
    Behind,
    /// The revision up to which history is read before continuing with the queue.
    Joining(Revision, Arc<Queue>),
    Live(Arc<Queue>),
    Ended,
}

struct Watch {
    shared: Arc<Shared>,
    range: KeyRange,
    previous_values: bool,
    /// The revision up to which everything was read.
    position: Revision,
    ready: VecDeque<Batch>,
    state: State,
}

/// A piece of history.
struct Piece {
    batches: VecDeque<Batch>,
    /// The revision up to which it is complete.
    end: Revision,
}

/// Follows `request`, whose start has been checked. The watch joins the hub at once if nothing is missing.
pub(super) fn stream(shared: Arc<Shared>, request: WatchRequest) -> WatchStream {
    let mut watch = Watch {
        shared,
        range: request.range,
        previous_values: request.previous_values,
        position: request.after,
        ready: VecDeque::new(),
        state: State::Behind,
    };
    watch.join();
    Box::pin(futures::stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        if item.is_err() {
            watch.state = State::Ended;
        }
        Some((item, watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Batch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(Ok(batch));
            }
            match &self.state {
                State::Ended => return None,
                State::Live(queue) => {
                    let next = queue.next().await;
                    return Some(next.unwrap_or(Err(StoreError::Closed)));
                }
                State::Behind => {
                    self.join();
                    if matches!(self.state, State::Behind) {
                        let newest = read_lock(&self.shared.index).revision();
                        let until = newest.min(Revision(self.position.0 + PIECE_REVISIONS));
                        if let Err(error) = self.read_until(until).await {
                            return Some(Err(error));
                        }
                    }
                }
                State::Joining(until, queue) => {
                    let (until, queue) = (*until, queue.clone());
                    if let Err(error) = self.read_until(until).await {
                        return Some(Err(error));
                    }
                    if self.position >= until {
                        self.state = State::Live(queue);
                    }
                }
            }
        }
    }

    /// Joins the hub if few revisions are missing.
    fn join(&mut self) {
        let mut hub = lock(&self.shared.hub);
        let missing = hub.revision().0.saturating_sub(self.position.0);
        if missing > JOIN_GAP {
            return;
        }
        let after = hub.revision().max(self.position);
        let queue = hub.join(self.range.clone(), self.previous_values, after);
        if missing == 0 {
            queue.mark(after);
            self.state = State::Live(queue);
        } else {
            self.state = State::Joining(after, queue);
        }
    }

    async fn read_until(&mut self, until: Revision) -> Result<()> {
        let (range, previous_values, after) = (self.range.clone(), self.previous_values, self.position);
        let read = move |conn: &Connection| {
            let transaction =
                conn.unchecked_transaction().map_err(|source| StoreError::backend("begin to read", source))?;
            read_piece(&transaction, &range, previous_values, after, until)
        };
        let piece = self.shared.readers.run(read).await;
        // Rows deleted by a compaction may be missing in this piece, or may have looked like damage.
        let compacted_at = read_lock(&self.shared.index).compacted_at();
        if compacted_at > after {
            return Err(StoreError::Compacted { requested: after, compacted_at });
        }
        let piece = piece?;
        self.position = piece.end;
        self.ready = piece.batches;
        if self.ready.back().is_none_or(|last| last.revision < piece.end) {
            self.ready.push_back(Batch { revision: piece.end, events: Arc::new([]) });
        }
        Ok(())
    }
}

fn read_piece(
    conn: &Connection,
    range: &KeyRange,
    previous_values: bool,
    after: Revision,
    until: Revision,
) -> Result<Piece> {
    let mut batches = VecDeque::new();
    let mut events: Vec<Event> = Vec::new();
    let mut current = after;
    let mut bytes = 0;
    let mut finish = |revision: Revision, events: &mut Vec<Event>| {
        if !events.is_empty() {
            let events = std::mem::take(events).into();
            batches.push_back(Batch { revision, events });
        }
    };
    let mut statement = conn.prepare_cached(&rows::select_from()).map_err(rows::read_failed)?;
    let first = RowId::first_of(after.next()).0 as i64;
    let last = RowId::first_of(until.next()).0 as i64 - 1;
    let mut found = statement.query(params![first, last]).map_err(rows::read_failed)?;
    let mut end = until;
    while let Some(row) = found.next().map_err(rows::read_failed)? {
        let head = rows::decode_head(row)?;
        if head.row.revision() != current {
            finish(current, &mut events);
            if bytes >= PIECE_BYTES {
                end = current;
                break;
            }
            current = head.row.revision();
        }
        if !range.contains(&head.key) {
            continue;
        }
        let value = rows::decode_value(row, &head)?;
        bytes += value.as_ref().map_or(0, Bytes::len);
        events.push(event(conn, head, value, previous_values)?);
    }
    finish(current, &mut events);
    Ok(Piece { batches, end })
}

fn event(conn: &Connection, head: Head, value: Option<Bytes>, previous_values: bool) -> Result<Event> {
    let previous = match head.previous {
        None => None,
        Some(row) => Some(Previous {
            mod_revision: row.revision(),
            value: if previous_values {
                let item = rows::read_row(conn, &head.key, row)?;
                let item = item.ok_or_else(|| StoreError::Damaged {
                    key: head.key.clone(),
                    revision: row.revision(),
                    detail: "its row is missing".to_owned(),
                })?;
                Some(item.value)
            } else {
                None
            },
        }),
    };
    let revision = head.row.revision();
    let change = match (value, head.create_revision) {
        (Some(value), Some(create_revision)) => {
            Change::Put(KeyValue { key: head.key, value, create_revision, mod_revision: revision, lease: head.lease })
        }
        _ => Change::Delete { key: head.key, revision },
    };
    Ok(Event { change, previous })
}
