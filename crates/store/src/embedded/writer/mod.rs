//! The only thread that writes.
//!
//! ```text
//! requests ──> collect (up to 1,024) ──> BEGIN, rows, state, COMMIT (one sync) ──> index ──> answers ──> watchers
//!                                              │ disk full: rolled back, all refused
//!                                              └ any other failure: fatal, nothing is ever retried
//! ```
//! Many requests share one sync: they queue up during the previous sync, and after a group of several the writer waits for more
//! while they keep coming, because a commit costs nearly the same for one as for many. Within a group, requests see each other
//! through [`Group::heads`]; others see them after the commit. Requests about leases and compaction are groups of their own. Each
//! group also deletes a few rows that compaction made superfluous.

mod commit;
mod group;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::folder::{FolderLock, Mark};
use super::index::RowId;
use super::leases::Leases;
use super::rows::State;
use crate::contract::{Lease, LeaseId, Operation, Result, Revision, Txn, TxnOutcome};
use crate::error::StoreError;
use commit::{Fatal, disk_full};
use group::{Group, LeaseChange};

/// The maximum number of requests that share a sync. Higher delays the first response, lower wastes syncs.
const GROUP_REQUESTS: usize = 1024;
/// The maximum time to wait for more requests after a group of several. Longer delays those that wait, shorter makes groups
/// smaller.
const GATHERING: Duration = Duration::from_micros(1_500);
/// The time without a new request after which the writer stops waiting. Longer delays small groups, shorter mistakes a short
/// pause for the end.
const LULL: Duration = Duration::from_micros(300);
/// The maximum bytes of keys and values that share a sync. They are held in memory until the commit returns.
const GROUP_BYTES: usize = 32 << 20;
/// Bytes written before the log is copied into the database, unless the options say otherwise.
pub(super) const CHECKPOINT_BYTES: usize = 4 << 20;

/// The channel for a response; its receiver may be closed.
pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// A request to the writer.
pub(super) enum Request {
    Txn(Txn, Reply<TxnOutcome>),
    Compact(Revision, Reply<()>),
    Grant(Duration, Reply<Lease>),
    KeepAlive(LeaseId, Reply<Lease>),
    Revoke(LeaseId, Reply<Revision>),
    Lease(LeaseId, Reply<Lease>),
    /// Ends expired leases.
    Expire,
    Close,
}

/// The writer's state; [`Writer::run`] is its thread.
pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub requests: mpsc::Receiver<Request>,
    pub conn: Connection,
    pub state: State,
    pub mark: Mark,
    pub leases: Leases,
    pub next_deadline: watch::Sender<Option<Duration>>,
    /// Rows that compaction made superfluous.
    pub superfluous: VecDeque<RowId>,
    pub unchecked_bytes: usize,
    /// The number of written bytes after which the log is copied into the database.
    pub checkpoint_bytes: usize,
    /// The number of transactions in the last group.
    pub last_group: usize,
    /// Last, so that the folder is released after the database was closed.
    pub _lock: FolderLock,
}

impl Writer {
    /// Serves requests until the store is closed.
    pub fn run(&mut self) -> Result<(), Fatal> {
        let mut held = None;
        loop {
            let first = match held.take() {
                Some(request) => Some(request),
                None if self.superfluous.is_empty() => match self.requests.blocking_recv() {
                    Some(request) => Some(request),
                    None => return Ok(()),
                },
                None => match self.requests.try_recv() {
                    Ok(request) => Some(request),
                    Err(TryRecvError::Empty) => None,
                    // The remaining rows are found again at open.
                    Err(TryRecvError::Disconnected) => return Ok(()),
                },
            };
            match first {
                Some(Request::Close) => return Ok(()),
                Some(Request::Txn(txn, reply)) => held = self.serve_txns(txn, reply)?,
                Some(Request::KeepAlive(id, reply)) => {
                    let renewed = self.leases.keep_alive(id, self.shared.clock.now());
                    let _ = reply.send(renewed.ok_or(StoreError::LeaseNotFound { id }));
                    self.tell_deadline();
                }
                Some(Request::Lease(id, reply)) => {
                    let _ = reply.send(self.leases.get(id).ok_or(StoreError::LeaseNotFound { id }));
                }
                Some(Request::Grant(ttl, reply)) => {
                    let _ = reply.send(self.grant(ttl)?);
                }
                Some(Request::Revoke(id, reply)) => {
                    let _ = reply.send(self.end_lease(id)?);
                }
                Some(Request::Expire) => {
                    while let Some(id) = self.leases.expired(self.shared.clock.now()) {
                        if let Err(error) = self.end_lease(id)? {
                            tracing::warn!(%id, %error, "ending an expired lease failed, trying again");
                            break;
                        }
                    }
                    self.tell_deadline();
                }
                Some(Request::Compact(at, reply)) => {
                    let _ = reply.send(self.compact(at)?);
                }
                None => {
                    if self.commit(&Group::default())?.is_err() {
                        // The disk is full; wait for the next request rather than spin.
                        match self.requests.blocking_recv() {
                            Some(request) => held = Some(request),
                            None => return Ok(()),
                        }
                    }
                }
            }
            if self.unchecked_bytes >= self.checkpoint_bytes {
                self.checkpoint()?;
            }
        }
    }

    /// Commits a transaction together with waiting ones; returns a request that cannot join them.
    fn serve_txns(&mut self, txn: Txn, reply: Reply<TxnOutcome>) -> Result<Option<Request>, Fatal> {
        self.gather();
        let mut group = Group::default();
        let mut replies = Vec::new();
        let mut held = None;
        let mut next = Some((txn, reply));
        while let Some((txn, reply)) = next.take() {
            let outcome = self.stage(&mut group, txn);
            replies.push((reply, outcome));
            if replies.len() >= GROUP_REQUESTS || group.bytes >= GROUP_BYTES {
                break;
            }
            match self.requests.try_recv() {
                Ok(Request::Txn(txn, reply)) => next = Some((txn, reply)),
                Ok(other) => held = Some(other),
                Err(_) => {}
            }
        }
        let committed = self.commit(&group)?;
        self.last_group = replies.len();
        self.shared.stats.transactions.fetch_add(replies.len() as u64, Ordering::Relaxed);
        for (reply, outcome) in replies {
            let answer = match (&committed, outcome) {
                (Err(full), Ok(TxnOutcome::Committed { .. })) => Err(disk_full(full)),
                // The condition may have been compared with a change that was rolled back.
                (Err(full), Ok(TxnOutcome::ConditionFailed { .. })) => Err(disk_full(full)),
                (_, outcome) => outcome,
            };
            let _ = reply.send(answer);
        }
        if committed.is_ok() {
            self.publish(group.revisions);
        }
        Ok(held)
    }

    /// Waits for more requests while they keep coming. A single writer is not delayed: the wait only happens after a group of
    /// several.
    #[expect(clippy::disallowed_methods, reason = "this thread is the writer's own")]
    fn gather(&self) {
        let begun = Instant::now();
        let mut waiting = self.requests.len();
        while self.last_group > 1 && waiting < GROUP_REQUESTS && begun.elapsed() < GATHERING {
            std::thread::sleep(LULL);
            let before = std::mem::replace(&mut waiting, self.requests.len());
            if waiting == before {
                break;
            }
        }
    }

    fn grant(&mut self, ttl: Duration) -> Result<Result<Lease>, Fatal> {
        let lease = Lease { id: self.leases.free_id(), ttl };
        let group = Group { lease: Some(LeaseChange::Grant(lease)), ..Group::default() };
        let committed = self.commit(&group)?;
        self.tell_deadline();
        Ok(committed.map(|()| lease).map_err(|full| disk_full(&full)))
    }

    fn end_lease(&mut self, id: LeaseId) -> Result<Result<Revision>, Fatal> {
        let Some(keys) = self.leases.keys(id) else {
            return Ok(Err(StoreError::LeaseNotFound { id }));
        };
        let mut group = Group { lease: Some(LeaseChange::End(id)), ..Group::default() };
        // A lease may hold more keys than a transaction may have operations.
        let mut keys = keys.into_iter().map(|key| Operation::Delete { key }).peekable();
        while keys.peek().is_some() {
            self.apply(&mut group, keys.by_ref().take(RowId::MAX_POSITIONS).collect());
        }
        let committed = self.commit(&group)?;
        self.tell_deadline();
        if let Err(full) = committed {
            return Ok(Err(disk_full(&full)));
        }
        self.publish(group.revisions);
        Ok(Ok(self.state.revision))
    }

    fn tell_deadline(&self) {
        let next = self.leases.next_deadline();
        self.next_deadline.send_if_modified(|deadline| {
            let changed = *deadline != next;
            *deadline = next;
            changed
        });
    }
}
