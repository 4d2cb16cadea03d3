//! The one thread that writes.
//!
//! ```text
//! requests ──> collect (up to 1,024) ──> BEGIN, rows, state, COMMIT (one sync) ──> index ──> answers ──> watchers
//!                                              │ disk full: rolled back, all refused
//!                                              └ any other failure: fatal, nothing is ever retried
//! ```
//! Many requests share one sync because they queue up while the one before is syncing, and because more are waited for where
//! several came together, as long as they keep coming: a commit costs nearly as much for one as for many. Within a group, requests see each
//! other through [`Group::heads`]; everybody else sees them when the commit has returned. Requests about leases and
//! compaction are a group of their own. Rows that compaction made superfluous are deleted a few with each group.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::{oneshot, watch};

use super::database::{FolderLock, Mark};
use super::hub::{PreviousRow, Published, PublishedRevision};
use super::index::{RowId, Version};
use super::leases::Leases;
use super::rows::{self, Head, State};
use super::{Shared, lock, read_lock, write_lock};
use crate::contract::{Condition, KeyValue, Lease, LeaseId, Operation, Result, Revision, Txn, TxnOutcome};
use crate::error::StoreError;

/// Requests that share a sync at most. Higher delays the first one's answer, lower wastes syncs.
const GROUP_REQUESTS: usize = 1024;
/// How long requests are waited for at most when several came at once before. Longer is felt by those that wait, shorter brings
/// fewer of them together.
const GATHERING: Duration = Duration::from_micros(1_500);
/// If nobody comes for so long, nobody is waited for any more. Longer is felt by the few that write at once, shorter takes a slow
/// moment of many for their end.
const LULL: Duration = Duration::from_micros(300);
/// Bytes of keys and values that share a sync at most: they are held in memory until the commit has returned.
const GROUP_BYTES: usize = 32 << 20;
/// Bytes written before the log is copied into the database, unless the options say otherwise.
pub(super) const CHECKPOINT_BYTES: usize = 4 << 20;
/// Superfluous rows deleted with one group: more would be felt by the writes that share it.
const DELETIONS_PER_GROUP: usize = 256;

/// Free pages below which the database is never shrunk: a compaction frees as many and the next writes take them.
const FREE_PAGES: i64 = 4096;

/// Where an answer goes; nobody may be waiting any more.
pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What the writer is asked to do.
pub(super) enum Request {
    Txn(Txn, Reply<TxnOutcome>),
    Compact(Revision, Reply<()>),
    Grant(Duration, Reply<Lease>),
    KeepAlive(LeaseId, Reply<Lease>),
    Revoke(LeaseId, Reply<Revision>),
    Lease(LeaseId, Reply<Lease>),
    /// Ends the leases whose time has come.
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
    /// Rows that compaction left over.
    pub superfluous: VecDeque<RowId>,
    pub unchecked_bytes: usize,
    /// When the log is copied into the database.
    pub checkpoint_bytes: usize,
    /// How many transactions the last group had.
    pub last_group: usize,
    /// Last, so that the folder is released after the database was closed.
    pub _lock: FolderLock,
}

/// Why the writer cannot go on.
pub(super) type Fatal = Box<dyn std::error::Error + Send + Sync>;

/// How a commit failed.
enum CommitError {
    /// Nothing was written; later writes may succeed.
    DiskFull(rusqlite::Error),
    /// What is on disk is unknown.
    Fatal(Fatal),
}

impl From<rusqlite::Error> for CommitError {
    fn from(source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => CommitError::DiskFull(source),
            _ => CommitError::Fatal(Box::new(source)),
        }
    }
}

/// Transactions on their way to one commit.
#[derive(Default)]
struct Group {
    revisions: Vec<PublishedRevision>,
    rows: Vec<(Head, Option<Bytes>)>,
    /// Newest states of keys that this group changed: position in `rows`.
    heads: HashMap<Bytes, usize>,
    /// A lease that this group ends, and whether it is new.
    lease: Option<LeaseChange>,
    bytes: usize,
}

enum LeaseChange {
    Grant(Lease),
    End(LeaseId),
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
                    // What is left is found again at open.
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
                            tracing::warn!(%id, %error, "expired lease could not be ended yet");
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
                        // The disk is full; go on with the next request rather than spin.
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

    /// Commits a transaction together with those that already wait; returns a request that cannot join them.
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
                // What was compared may have been part of what was rolled back.
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

    /// Waits for others, as long as they keep coming. Who writes alone is not held up: it waits only when several came together the
    /// last time.
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

    /// Decides a transaction and adds its changes to the group.
    fn stage(&self, group: &mut Group, txn: Txn) -> Result<TxnOutcome> {
        for operation in &txn.operations {
            if let Operation::Put { lease: Some(id), .. } = operation
                && !self.leases.contains(*id)
            {
                return Err(StoreError::LeaseNotFound { id: *id });
            }
        }
        let revision = self.newest_revision(group);
        for (index, condition) in txn.conditions.iter().enumerate() {
            let newest = self.newest_of(group, condition.key());
            let found = newest.filter(|(version, _)| version.is_live());
            let holds = match condition {
                Condition::Absent(_) => found.is_none(),
                Condition::Exists(_) => found.is_some(),
                Condition::Unchanged(_, expected) => {
                    found.is_some_and(|(version, _)| version.row.revision() == *expected)
                }
            };
            if !holds {
                let current = match found {
                    Some((version, staged)) => Some(self.item(group, condition.key(), version, staged)?),
                    None => None,
                };
                return Ok(TxnOutcome::ConditionFailed { index, current, revision });
            }
        }
        let revision = self.apply(group, txn.operations);
        Ok(TxnOutcome::Committed { revision })
    }

    fn newest_revision(&self, group: &Group) -> Revision {
        group.revisions.last().map_or(self.state.revision, |published| published.revision)
    }

    /// The newest version of a key, with its position in the group if that wrote it.
    fn newest_of(&self, group: &Group, key: &[u8]) -> Option<(Version, Option<usize>)> {
        if let Some(position) = group.heads.get(key) {
            let head = &group.rows[*position].0;
            let version = Version { row: head.row, create_revision: head.create_revision };
            return Some((version, Some(*position)));
        }
        let version = read_lock(&self.shared.index).newest(key)?;
        Some((version, None))
    }

    fn item(&self, group: &Group, key: &Bytes, version: Version, staged: Option<usize>) -> Result<KeyValue> {
        if let Some(position) = staged {
            let (head, value) = &group.rows[position];
            return Ok(KeyValue {
                key: head.key.clone(),
                value: value.clone().unwrap_or_default(),
                create_revision: head.create_revision.unwrap_or_default(),
                mod_revision: head.row.revision(),
                lease: head.lease,
            });
        }
        rows::read_row(&self.conn, key, version.row)?.ok_or_else(|| missing(key, version.row))
    }

    /// Adds operations as one revision; returns the group's newest revision.
    fn apply(&self, group: &mut Group, operations: Vec<Operation>) -> Revision {
        let before = self.newest_revision(group);
        let revision = before.next();
        let mut changes = Vec::new();
        for operation in operations {
            let (key, value, lease) = match operation {
                Operation::Put { key, value, lease } => (key, Some(value), lease),
                Operation::Delete { key } => (key, None, None),
            };
            let previous = self.newest_of(group, &key).filter(|(version, _)| version.is_live());
            if value.is_none() && previous.is_none() {
                continue;
            }
            let create_revision = value.as_ref().map(|_| match previous {
                Some((version, _)) => version.create_revision.unwrap_or(revision),
                None => revision,
            });
            let head = Head {
                row: RowId::new(revision, changes.len()),
                key: key.clone(),
                create_revision,
                previous: previous.map(|(version, _)| version.row),
                lease,
            };
            changes.push(Published {
                key: key.clone(),
                item: value.clone().zip(create_revision).map(|(value, created)| KeyValue {
                    key: key.clone(),
                    value,
                    create_revision: created,
                    mod_revision: revision,
                    lease,
                }),
                previous: previous.map(|(version, staged)| PreviousRow {
                    row: version.row,
                    value: staged.and_then(|position| group.rows[position].1.clone()),
                }),
            });
            group.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            group.heads.insert(key, group.rows.len());
            group.rows.push((head, value));
        }
        if changes.is_empty() {
            return before;
        }
        group.revisions.push(PublishedRevision { revision, changes });
        revision
    }

    /// Makes a group durable and visible. The inner error: the disk is full and nothing was changed.
    fn commit(&mut self, group: &Group) -> Result<Result<(), rusqlite::Error>, Fatal> {
        let deletions = self.superfluous.len().min(DELETIONS_PER_GROUP);
        if group.rows.is_empty() && group.lease.is_none() && deletions == 0 {
            return Ok(Ok(()));
        }
        let mut state = self.state;
        state.revision = self.newest_revision(group);
        state.compacted_at = read_lock(&self.shared.index).compacted_at();
        match self.write(group, &mut state, deletions) {
            Ok(()) => {}
            Err(CommitError::DiskFull(source)) => {
                if !self.conn.is_autocommit() {
                    self.conn.execute_batch("ROLLBACK")?;
                }
                return Ok(Err(source));
            }
            Err(CommitError::Fatal(error)) => return Err(error),
        }
        self.shared.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.state = state;
        self.superfluous.drain(..deletions);
        self.unchecked_bytes += group.bytes + 128 * (group.rows.len() + deletions) + 4096;
        self.mark.write(state.revision)?;
        for (head, _) in &group.rows {
            self.leases.attach(&head.key, head.lease);
        }
        match &group.lease {
            Some(LeaseChange::Grant(lease)) => {
                self.leases.grant(*lease, self.shared.clock.now());
            }
            Some(LeaseChange::End(id)) => self.leases.remove(*id),
            None => {}
        }
        let mut index = write_lock(&self.shared.index);
        for (head, _) in &group.rows {
            let version = Version { row: head.row, create_revision: head.create_revision };
            index.apply(&head.key, version);
        }
        index.set_revision(state.revision);
        Ok(Ok(()))
    }

    fn write(&self, group: &Group, state: &mut State, deletions: usize) -> Result<(), CommitError> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for (head, value) in &group.rows {
            rows::insert(&self.conn, head, value.as_ref())?;
            state.add_row(head.row);
        }
        for row in self.superfluous.iter().take(deletions) {
            if !rows::delete(&self.conn, *row)? {
                return Err(CommitError::Fatal(Box::new(missing(&Bytes::new(), *row))));
            }
            state.remove_row(*row);
        }
        match &group.lease {
            Some(LeaseChange::Grant(lease)) => {
                let ttl_ms = i64::try_from(lease.ttl.as_millis()).unwrap_or(i64::MAX);
                self.conn
                    .prepare_cached("INSERT INTO leases (id, ttl_ms) VALUES (?1, ?2)")?
                    .execute(params![lease.id.0 as i64, ttl_ms])?;
            }
            Some(LeaseChange::End(id)) => {
                self.conn.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute(params![id.0 as i64])?;
            }
            None => {}
        }
        state.write(&self.conn)?;
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Tells the watchers about a committed group.
    fn publish(&mut self, revisions: Vec<PublishedRevision>) {
        let newest = self.state.revision;
        let conn = &self.conn;
        lock(&self.shared.hub).publish(&revisions, newest, |key, previous| {
            let item = rows::read_row(conn, key, previous.row)?;
            Ok(item.ok_or_else(|| missing(key, previous.row))?.value)
        });
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

    fn compact(&mut self, at: Revision) -> Result<Result<()>, Fatal> {
        {
            let mut index = write_lock(&self.shared.index);
            if at > index.revision() {
                return Ok(Err(StoreError::FutureRevision { requested: at, current: index.revision() }));
            }
            if at <= index.compacted_at() {
                return Ok(Ok(()));
            }
            // From here on nobody can ask for what is deleted below and in later groups.
            self.superfluous.extend(index.compact(at));
        }
        let mut state = self.state;
        state.compacted_at = at;
        let write = |conn: &Connection| -> Result<(), CommitError> {
            conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            state.write(conn)?;
            conn.prepare_cached("COMMIT")?.execute([])?;
            Ok(())
        };
        match write(&self.conn) {
            Ok(()) => {
                self.state = state;
                Ok(Ok(()))
            }
            Err(CommitError::DiskFull(source)) => {
                if !self.conn.is_autocommit() {
                    self.conn.execute_batch("ROLLBACK")?;
                }
                Ok(Err(disk_full(&source)))
            }
            Err(CommitError::Fatal(error)) => Err(error),
        }
    }

    /// Copies the log into the database, as far as no reader is in the way, and gives free pages back.
    fn checkpoint(&mut self) -> Result<(), Fatal> {
        self.unchecked_bytes = 0;
        for pragma in ["PRAGMA wal_checkpoint(PASSIVE)", self.vacuum()?].into_iter().filter(|p| !p.is_empty()) {
            match run_pragma(&self.conn, pragma) {
                Ok(()) => {}
                // The log keeps everything until there is room.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {}
                Err(error) => return Err(Box::new(error)),
            }
        }
        self.shared.stats.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How to shrink the database if most of it is free; free pages are otherwise used again.
    fn vacuum(&self) -> Result<&'static str, Fatal> {
        let pages = |pragma| self.conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let free = pages("freelist_count")?;
        let is_worth_it = free > FREE_PAGES && free * 2 > pages("page_count")?;
        Ok(if is_worth_it { "PRAGMA incremental_vacuum(1024)" } else { "" })
    }
}

/// Runs a pragma to its end.
fn run_pragma(conn: &Connection, pragma: &str) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(pragma)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

fn disk_full(source: &rusqlite::Error) -> StoreError {
    StoreError::DiskFull { detail: source.to_string() }
}

fn missing(key: &Bytes, row: RowId) -> StoreError {
    StoreError::Damaged { key: key.clone(), revision: row.revision(), detail: "its row is missing".to_owned() }
}
