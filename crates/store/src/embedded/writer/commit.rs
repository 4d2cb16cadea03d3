//! Commits: makes a group durable and visible, deletes superfluous rows, compacts, and checkpoints the log.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, params};

use super::Writer;
use super::group::{Group, LeaseChange};
use crate::contract::{Result, Revision};
use crate::embedded::hub::PublishedRevision;
use crate::embedded::index::Version;
use crate::embedded::rows::{self, State, missing};
use crate::embedded::{lock, read_lock, write_lock};
use crate::error::StoreError;

/// Superfluous rows deleted with one group. More would delay the writes in the group.
const DELETIONS_PER_GROUP: usize = 256;

/// The number of free pages below which the database is not shrunk: a compaction frees this many, and the next writes use them.
const FREE_PAGES: i64 = 4096;

/// The reason why the writer cannot continue.
pub(in crate::embedded) type Fatal = Box<dyn std::error::Error + Send + Sync>;

/// The failure of a commit.
enum CommitError {
    /// Nothing was written; later writes may succeed.
    DiskFull(rusqlite::Error),
    /// The state on disk is unknown.
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

impl Writer {
    /// Makes a group durable and visible. The inner error: the disk is full and nothing was changed.
    pub(super) fn commit(&mut self, group: &Group) -> Result<Result<(), rusqlite::Error>, Fatal> {
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

    /// Publishes a committed group to the watchers.
    pub(super) fn publish(&mut self, revisions: Vec<PublishedRevision>) {
        let newest = self.state.revision;
        let conn = &self.conn;
        lock(&self.shared.hub).publish(&revisions, newest, |key, previous| {
            let item = rows::read_row(conn, key, previous.row)?;
            Ok(item.ok_or_else(|| missing(key, previous.row))?.value)
        });
    }

    pub(super) fn compact(&mut self, at: Revision) -> Result<Result<()>, Fatal> {
        {
            let mut index = write_lock(&self.shared.index);
            if at > index.revision() {
                return Ok(Err(StoreError::FutureRevision { requested: at, current: index.revision() }));
            }
            if at <= index.compacted_at() {
                return Ok(Ok(()));
            }
            // From here on the rows that are deleted with later groups can no longer be read.
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

    /// Copies the log into the database as far as readers allow, and returns free pages to the file system.
    pub(super) fn checkpoint(&mut self) -> Result<(), Fatal> {
        self.unchecked_bytes = 0;
        for pragma in ["PRAGMA wal_checkpoint(PASSIVE)", self.vacuum()?].into_iter().filter(|p| !p.is_empty()) {
            match run_pragma(&self.conn, pragma) {
                Ok(()) => {}
                // The log keeps everything until there is space.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {}
                Err(error) => return Err(Box::new(error)),
            }
        }
        self.shared.stats.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the pragma that shrinks the database, if most of it is free; otherwise free pages are reused.
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

pub(super) fn disk_full(source: &rusqlite::Error) -> StoreError {
    StoreError::DiskFull { detail: source.to_string() }
}
