//! Opens a store: options, rebuilding the index and leases from rows, starting the writer.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;

use super::database::Database;
use super::hub::Hub;
use super::index::{Index, Version};
use super::leases::Leases;
use super::open_error::OpenError;
use super::readers::Readers;
use super::writer::{self, Writer};
use super::{Counters, Deadlines, EmbeddedStore, Shared, rows};
use crate::clock::{Clock, SystemClock};
use crate::contract::{Lease, LeaseId, Revision};
#[cfg(doc)]
use crate::error::StoreError;

/// The maximum number of requests that wait for the writer; further callers wait to enqueue.
const REQUEST_QUEUE: usize = 4096;

/// Called with the cause when the state on disk is unknown. It should end the process.
pub type FatalHook = Arc<dyn Fn(&(dyn std::error::Error + 'static)) + Send + Sync>;

/// Options for opening an [`EmbeddedStore`].
#[derive(Clone)]
pub struct Options {
    folder: PathBuf,
    readers: usize,
    base: Option<Revision>,
    checkpoint_bytes: usize,
    clock: Arc<dyn Clock>,
    fatal: FatalHook,
}

impl Options {
    /// Returns options for the store in `folder`, which is created if it does not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Options {
            folder: folder.into(),
            readers: 4,
            base: None,
            checkpoint_bytes: writer::CHECKPOINT_BYTES,
            clock: Arc::new(SystemClock::default()),
            fatal: Arc::new(|error| {
                tracing::error!(error = chain(error), "store failed, ending the process");
                std::process::abort();
            }),
        }
    }

    /// Sets the clock of leases.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets the hook for a failed commit. The default logs the cause and aborts the process. If the hook returns, the store is
    /// closed: every operation fails with [`StoreError::Closed`].
    #[must_use]
    pub fn on_fatal(mut self, hook: impl Fn(&(dyn std::error::Error + 'static)) + Send + Sync + 'static) -> Self {
        self.fatal = Arc::new(hook);
        self
    }

    /// Creates a new store whose counter begins at `revision`; refuses an existing store ([`OpenError::Exists`]).
    #[must_use]
    pub fn create_at(mut self, revision: Revision) -> Self {
        self.base = Some(revision);
        self
    }

    /// Sets the number of written bytes after which the log is copied into the database (default: 4 MiB). Lower syncs more often,
    /// higher lets the log grow.
    #[must_use]
    pub fn checkpoint_after(mut self, bytes: usize) -> Self {
        self.checkpoint_bytes = bytes;
        self
    }

    /// Sets the number of concurrent reads.
    #[must_use]
    pub fn readers(mut self, connections: usize) -> Self {
        self.readers = connections.max(1);
        self
    }

    /// Opens the store: locks the folder, verifies its content and rebuilds the index.
    ///
    /// # Errors
    /// See [`OpenError`]: locked by another process, another format, damage.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn open(self) -> Result<EmbeddedStore, OpenError> {
        let folder = self.folder.clone();
        let opening = tokio::runtime::Handle::current().spawn_blocking(move || self.open_blocking());
        let (store, deadlines) = match opening.await {
            Ok(opened) => opened?,
            Err(source) => {
                return Err(OpenError::Io {
                    operation: "open store",
                    path: folder,
                    source: std::io::Error::other(source),
                });
            }
        };
        store.spawn_expiry(deadlines);
        Ok(store)
    }

    fn open_blocking(self) -> Result<(EmbeddedStore, Deadlines), OpenError> {
        let database = Database::open(&self.folder, self.base)?;
        let (mut index, leases) = load(&database, self.clock.now())?;
        // After a crash: rows that were compacted but not yet deleted.
        let superfluous = VecDeque::from(index.compact(database.state.compacted_at));
        let shared = Arc::new(Shared {
            hub: Mutex::new(Hub::new(index.revision())),
            index: RwLock::new(index),
            readers: Arc::new(Readers::new(database.path.clone(), self.readers)),
            clock: self.clock,
            stats: Counters::default(),
        });
        let (requests, receiver) = mpsc::channel(REQUEST_QUEUE);
        let (next_deadline, deadlines) = tokio::sync::watch::channel(leases.next_deadline());
        let mut writer = Writer {
            shared: shared.clone(),
            requests: receiver,
            conn: database.writer,
            state: database.state,
            mark: database.mark,
            leases,
            next_deadline,
            superfluous,
            unchecked_bytes: 0,
            checkpoint_bytes: self.checkpoint_bytes,
            last_group: 0,
            _lock: database.lock,
        };
        let fatal = self.fatal;
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| writer.run());
                match std::panic::catch_unwind(run) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => fatal(&*error),
                    Err(_) => fatal(&WriterPanicked),
                }
                writer.shared.close();
            })
            .map_err(|source| OpenError::Io { operation: "start the writer of", path: self.folder, source })?;
        let store = EmbeddedStore { shared, requests, thread: Mutex::new(Some(thread)) };
        Ok((store, deadlines))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("writer panicked")]
struct WriterPanicked;

/// Rebuilds index and leases from the rows, and compares the rows with the state row.
fn load(database: &Database, now: Duration) -> Result<(Index, Leases), OpenError> {
    let read = |source| OpenError::Read { path: database.path.clone(), source };
    let mut index = Index::default();
    let mut leases = Leases::default();
    load_leases(database, &mut leases, now).map_err(|source| read(rows::read_failed(source)))?;
    let mut found = rows::State::default();
    rows::for_each_head(&database.writer, |head| {
        found.add_row(head.row);
        found.revision = head.row.revision();
        leases.attach(&head.key, head.lease);
        let version = Version { row: head.row, create_revision: head.create_revision };
        index.apply(&head.key, version);
    })
    .map_err(read)?;
    let expected = database.state;
    if (found.rows, found.digest) != (expected.rows, expected.digest) || found.revision > expected.revision {
        return Err(OpenError::Inconsistent {
            path: database.path.clone(),
            detail: format!(
                "it holds {} changes up to revision {}, {} up to revision {} were written",
                found.rows, found.revision, expected.rows, expected.revision
            ),
        });
    }
    index.set_revision(expected.revision);
    Ok((index, leases))
}

fn load_leases(database: &Database, leases: &mut Leases, now: Duration) -> Result<(), rusqlite::Error> {
    let mut statement = database.writer.prepare("SELECT id, ttl_ms FROM leases")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let lease = Lease {
            id: LeaseId(row.get::<_, i64>(0)? as u64),
            ttl: Duration::from_millis(row.get::<_, i64>(1)? as u64),
        };
        leases.grant(lease, now);
    }
    Ok(())
}

/// Returns an error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
