//! The files of a store: the lock, the database with its format version, and the acknowledged revision.
//!
//! ```text
//! <folder>/lock           held exclusively while the store is open; names the holder's process id
//! <folder>/store.db       SQLite, WAL (store.db-wal, store.db-shm)
//! <folder>/acknowledged   the newest acknowledged revision, written after each commit without a sync of its own
//! ```
//! SQLite takes a damaged block in its log for the log's end and silently drops what follows. The mark detects that: it is only
//! written after a commit was synced, so a database that is behind its mark has lost acknowledged writes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

use super::rows::State;
use crate::contract::Revision;
use crate::error::StoreError;

/// The format that this version writes, kept in the database's `user_version`.
pub const FORMAT_VERSION: i32 = 1;

/// "evro": distinguishes a store from other SQLite databases.
const APPLICATION_ID: i32 = 0x6576_726F;

/// How long a statement waits for another connection's lock. Connections of one store only meet while the log is recovered or
/// restarted, which takes milliseconds. Too short fails reads, too long only delays an error.
const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The reason why a store could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("store {} is in use by process {holder}: stop it first, two processes cannot share a store", folder.display())]
    Locked {
        /// The store's folder.
        folder: PathBuf,
        /// The other process, if known.
        holder: String,
    },
    /// The database belongs to another program.
    #[error("{} is not a store of evroc (application id {found:#x}, expected {APPLICATION_ID:#x}): choose another folder", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
        /// Its application id.
        found: i32,
    },
    /// The state was written by another version of this program.
    #[error("store {} has format {found}, this version supports format {FORMAT_VERSION}: {advice}", path.display())]
    Format {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i32,
        /// The advice.
        advice: &'static str,
    },
    /// The store to create already exists.
    #[error("{} already holds a store: choose another folder, or move it away first", path.display())]
    Exists {
        /// The database.
        path: PathBuf,
    },
    /// The database ends before the newest acknowledged write.
    #[error(
        "store {} has lost acknowledged writes: it ends at revision {found}, but revision {acknowledged} was \
         acknowledged. Restore a backup, or remove the file `acknowledged` beside it to go on without them",
        path.display()
    )]
    LostWrites {
        /// The database.
        path: PathBuf,
        /// Its newest revision.
        found: Revision,
        /// The newest acknowledged revision.
        acknowledged: Revision,
    },
    /// The rows do not match the store's own count and checksum.
    #[error("store {} is damaged: {detail}. Restore a backup", path.display())]
    Inconsistent {
        /// The database.
        path: PathBuf,
        /// The mismatch.
        detail: String,
    },
    /// A row or the engine's structure is damaged.
    #[error("reading store {}", path.display())]
    Read {
        /// The database.
        path: PathBuf,
        /// The damage.
        #[source]
        source: StoreError,
    },
    /// The engine failed.
    #[error("{operation} {}", path.display())]
    Engine {
        /// The operation.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

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

fn make_folder(folder: &Path) -> Result<(), OpenError> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(|source| OpenError::Io {
        operation: "create folder",
        path: folder.to_owned(),
        source,
    })?;
    match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), OpenError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| OpenError::Io {
        operation: "sync folder",
        path: folder.to_owned(),
        source,
    })
}

fn open_file(folder: &Path, name: &str) -> Result<File, OpenError> {
    let path = folder.join(name);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| OpenError::Io { operation: "open", path, source })
}

/// A lock that is held while the store is open. The kernel releases it when the process ends.
pub(super) struct FolderLock(#[expect(dead_code, reason = "held for its lock")] File);

impl FolderLock {
    fn take(folder: &Path) -> Result<Self, OpenError> {
        let mut file = open_file(folder, "lock")?;
        let io = |operation| {
            let path = folder.join("lock");
            move |source| OpenError::Io { operation, path, source }
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Best effort: it is only used in an error message.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "unknown".to_owned(),
                    known => known.to_owned(),
                };
                return Err(OpenError::Locked { folder: folder.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io("write"))?;
        Ok(FolderLock(file))
    }
}

/// The newest acknowledged revision with a checksum.
pub(super) struct Mark(File);

impl Mark {
    fn open(folder: &Path) -> Result<Self, OpenError> {
        Ok(Mark(open_file(folder, "acknowledged")?))
    }

    /// Reads the mark. `None` if it is absent or unreadable: it may not have been written before a power loss.
    fn read(&self) -> Option<Revision> {
        let mut bytes = [0; 12];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        let (revision, crc) = bytes.split_at(8);
        if crc32fast::hash(revision).to_be_bytes() != crc {
            return None;
        }
        Some(Revision(u64::from_be_bytes(revision.try_into().ok()?)))
    }

    pub fn write(&self, revision: Revision) -> io::Result<()> {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&revision.0.to_be_bytes());
        let crc = crc32fast::hash(&bytes[..8]);
        bytes[8..].copy_from_slice(&crc.to_be_bytes());
        self.0.write_all_at(&bytes, 0)
    }
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
