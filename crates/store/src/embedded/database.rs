//! The files of a store: the lock, the database with its format version, and the acknowledged revision.
//!
//! ```text
//! <folder>/lock           held exclusively while the store is open; names the holder's process id
//! <folder>/store.db       SQLite, WAL (store.db-wal, store.db-shm)
//! <folder>/acknowledged   the newest acknowledged revision, written after each commit without a sync of its own
//! ```
//! SQLite takes a damaged block in its log for the log's end and silently drops what follows. The mark detects that: it is only
//! written after a commit was synced, so a database that is behind its mark has lost acknowledged writes.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::folder::{FolderLock, Mark, make_folder, sync_folder};
use super::format::{APPLICATION_ID, FORMAT_VERSION};
use super::open_error::OpenError;
use super::rows::State;
use crate::contract::Revision;

/// How long a statement waits for another connection's lock. Connections of one store only meet while the log is recovered or
/// restarted, which takes milliseconds. Too short fails reads, too long only delays an error.
const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The files of an open store.
pub(super) struct Database {
    pub path: PathBuf,
    pub writer: Connection,
    pub state: State,
    pub mark: Mark,
    pub lock: FolderLock,
}

impl Database {
    /// Locks the folder and opens the database in it; creates both if they do not exist. With `base`, the database must not
    /// exist, and its counter begins there.
    pub fn open(folder: &Path, base: Option<Revision>) -> Result<Self, OpenError> {
        make_folder(folder)?;
        let lock = FolderLock::take(folder)?;
        let path = folder.join("store.db");
        let writer = connect(&path)?;
        let engine = |operation| {
            let path = path.clone();
            move |source| OpenError::Engine { operation, path, source }
        };
        prepare(&writer, &path, base)?;
        sync_folder(folder)?;
        let state =
            State::read(&writer).map_err(engine("read the state row of"))?.ok_or_else(|| OpenError::Inconsistent {
                path: path.clone(),
                detail: "its state row is missing or does not match its checksum".to_owned(),
            })?;
        let mark = Mark::open(folder)?;
        if let Some(acknowledged) = mark.read().filter(|marked| *marked > state.revision) {
            return Err(OpenError::LostWrites { path, found: state.revision, acknowledged });
        }
        Ok(Database { path, writer, state, mark, lock })
    }
}

/// Opens a connection for reading.
pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        // Only effective before the first table exists. Lets compaction return pages to the file system.
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        Ok(conn)
    };
    open().map_err(|source| OpenError::Engine { operation: "open", path: path.to_owned(), source })
}

/// Checks the database's format, and creates the tables in a new database.
fn prepare(conn: &Connection, path: &Path, base: Option<Revision>) -> Result<(), OpenError> {
    let engine = |operation| {
        let path = path.to_owned();
        move |source| OpenError::Engine { operation, path, source }
    };
    let number = |pragma: &str| conn.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let application = number("application_id").map_err(engine("read the application id of"))?;
    let format = number("user_version").map_err(engine("read the format of"))?;
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(engine("read the schema of"))?;
    let is_new = tables == 0 && application == 0 && format == 0;
    if !is_new && base.is_some() {
        return Err(OpenError::Exists { path: path.to_owned() });
    }
    if !is_new && application != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned(), found: application });
    }
    if !is_new && format != FORMAT_VERSION {
        let advice = if format > FORMAT_VERSION {
            "use the newer version that wrote it, or restore a backup of this version"
        } else {
            "start the version that wrote it and export its state"
        };
        return Err(OpenError::Format { path: path.to_owned(), found: format, advice });
    }
    conn.pragma_update(None, "journal_mode", "WAL")
        .and_then(|()| conn.pragma_update(None, "synchronous", "FULL"))
        // The writer checkpoints by itself, between batches.
        .and_then(|()| conn.pragma_update(None, "wal_autocheckpoint", 0))
        .and_then(|()| conn.pragma_update(None, "journal_size_limit", 64 << 20))
        .and_then(|()| conn.pragma_update(None, "cache_size", -8192))
        .map_err(engine("set up"))?;
    if is_new {
        create(conn, base.unwrap_or_default()).map_err(engine("create the tables of"))?;
    }
    Ok(())
}

/// Creates the tables in one transaction, so that an interrupted creation starts again.
fn create(conn: &Connection, base: Revision) -> rusqlite::Result<()> {
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE changes (
             id INTEGER PRIMARY KEY,            -- revision << 16 | position in the transaction
             create_revision INTEGER NOT NULL,  -- 0: a delete
             previous INTEGER NOT NULL,         -- id of the key's state before, 0: did not exist
             lease INTEGER NOT NULL,            -- 0: none
             head_crc INTEGER NOT NULL,         -- of everything but the value
             value_crc INTEGER NOT NULL,        -- of everything
             key BLOB NOT NULL,
             value BLOB                         -- NULL: a delete
         ) STRICT;
         CREATE TABLE state (
             id INTEGER PRIMARY KEY CHECK (id = 1),
             revision INTEGER NOT NULL,
             compacted_at INTEGER NOT NULL,
             rows INTEGER NOT NULL,             -- number of changes
             digest INTEGER NOT NULL,           -- sum over their ids
             crc INTEGER NOT NULL
         ) STRICT;
         CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL) STRICT;
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {FORMAT_VERSION};"
    ))?;
    State { revision: base, compacted_at: base, ..State::default() }.write(conn)?;
    conn.execute_batch("COMMIT")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets the pragmas that acknowledgements depend on: the log is synced with every commit, and copied only by the writer.
    #[test]
    fn the_engine_is_set_up_to_sync() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for _ in 0..2 {
            let database = Database::open(folder.path(), None).expect("database opens");
            let text = |pragma: &str| {
                database
                    .writer
                    .pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0))
                    .map(|value| format!("{value:?}"))
                    .expect("pragma is read")
            };
            assert_eq!(text("journal_mode"), "Text(\"wal\")");
            assert_eq!(text("synchronous"), "Integer(2)");
            assert_eq!(text("wal_autocheckpoint"), "Integer(0)");
            assert_eq!(text("auto_vacuum"), "Integer(2)");
        }
    }
}
