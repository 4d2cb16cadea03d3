//! The embedded backend: one folder, one process, based on SQLite.
//!
//! - [`open`]: options, and opening a folder. [`database`]: files, format version, lock. [`rows`]: the stored data and its
//!   verification.
//! - [`index`]: key to revisions, in memory. [`readers`]: connections for reading.
//! - [`writer`]: the only thread that writes; group commit. [`leases`]: deadlines of leases and their keys.
//! - [`hub`]: queues of the watchers that have caught up. [`watch`]: watchers that have not.
//!
//! Rows are keyed by revision, so that writing is appending; the order of keys exists only in the index.

mod backup;
mod database;
mod folder;
mod format;
mod hub;
mod index;
mod leases;
mod open;
mod open_error;
mod readers;
mod rows;
mod watch;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evroc_metrics::Registry;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::contract::{
    KeyValue, Lease, LeaseId, Limits, RangePage, RangeRequest, Result, Revision, Store, Txn, TxnOutcome, WatchRequest,
    WatchStream,
};
use crate::error::StoreError;
use crate::limits;

pub use format::FORMAT_VERSION;
pub use open::{FatalHook, Options};
pub use open_error::OpenError;

use hub::Hub;
use index::{Index, Version};
use readers::Readers;
use writer::Request;

/// The limits of this backend.
const LIMITS: Limits = Limits { key_bytes: 4096, value_bytes: 8 << 20, operations: 1024, txn_bytes: 16 << 20 };

type Deadlines = tokio::sync::watch::Receiver<Option<Duration>>;

/// The state shared by readers, watchers and the writer.
struct Shared {
    index: RwLock<Index>,
    hub: Mutex<Hub>,
    readers: Arc<Readers>,
    clock: Arc<dyn Clock>,
    stats: Counters,
}

impl Shared {
    fn close(&self) {
        lock(&self.hub).close();
        self.readers.close();
    }
}

#[derive(Default)]
struct Counters {
    transactions: AtomicU64,
    commits: AtomicU64,
    checkpoints: AtomicU64,
}

/// Counters of the work of an [`EmbeddedStore`] since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Transactions answered.
    pub transactions: u64,
    /// Commits, each with one sync of the log.
    pub commits: u64,
    /// Copies of the log into the database, each with two syncs.
    pub checkpoints: u64,
}

/// A store in a folder of this machine. Dropping it waits until the writer has stopped and releases the folder.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the store in `folder` with default [`Options`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self, OpenError> {
        Options::new(folder.as_ref()).open().await
    }

    /// Returns counters of the work since the store was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = &self.shared.stats;
        Stats {
            transactions: stats.transactions.load(Ordering::Relaxed),
            commits: stats.commits.load(Ordering::Relaxed),
            checkpoints: stats.checkpoints.load(Ordering::Relaxed),
        }
    }

    /// Has the registry contain the counters of [`EmbeddedStore::stats`] as long as the store is open.
    pub fn measure(&self, registry: &Registry) {
        let shared = Arc::downgrade(&self.shared);
        registry.at_scrape(move |scrape| {
            let Some(shared) = shared.upgrade() else { return Ok(()) };
            let (commits, checkpoints) = (&shared.stats.commits, &shared.stats.checkpoints);
            let syncs = commits.load(Ordering::Relaxed) as f64;
            scrape.counter("evroc_store_syncs", "Syncs of the log, each for a group of transactions", syncs)?;
            let copies = checkpoints.load(Ordering::Relaxed) as f64;
            scrape.counter("evroc_store_checkpoints", "Copies of the log into the database", copies)
        });
    }

    /// Writes a copy of the whole store, history included, to the new file `target`, and returns its revision. Placed in an empty
    /// folder as `store.db`, the copy is a store. Reads and writes continue meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Backend`] if the file exists or cannot be written.
    pub async fn backup(&self, target: impl AsRef<Path>) -> Result<Revision> {
        let target = target.as_ref().to_owned();
        self.shared.readers.run(move |conn| backup::write(conn, &target)).await
    }

    /// As [`EmbeddedStore::backup`], of the store in `folder`, which another process may have open meanwhile.
    ///
    /// # Errors
    /// As [`EmbeddedStore::backup`].
    pub async fn backup_folder(folder: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<Revision> {
        let (database, target) = (folder.as_ref().join("store.db"), target.as_ref().to_owned());
        let written = tokio::task::spawn_blocking(move || {
            let conn = database::connect_reader(&database).map_err(|source| StoreError::backend("backup", source))?;
            backup::write(&conn, &target)
        });
        written.await.map_err(|source| StoreError::backend("backup", source))?
    }

    async fn ask<T>(&self, request: impl FnOnce(writer::Reply<T>) -> Request) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Wakes the writer whenever a lease expires, while the store is open.
    fn spawn_expiry(&self, mut deadlines: Deadlines) {
        let requests = self.requests.downgrade();
        let clock = self.shared.clock.clone();
        tokio::spawn(async move {
            loop {
                let deadline = *deadlines.borrow_and_update();
                let expired = async {
                    match deadline {
                        Some(deadline) => clock.sleep_until(deadline).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = deadlines.changed() => if changed.is_err() { return },
                    () = expired => {
                        let Some(requests) = requests.upgrade() else { return };
                        if requests.send(Request::Expire).await.is_err() { return }
                        drop(requests);
                        // The writer sets a new deadline after it has ended leases; if the disk was full, try again.
                        let retry = clock.now() + EXPIRY_RETRY;
                        tokio::select! {
                            changed = deadlines.changed() => if changed.is_err() { return },
                            () = clock.sleep_until(retry) => {}
                        }
                    }
                }
            }
        });
    }
}

/// The delay before a lease that could not be ended (because the disk was full) is tried again.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        // Without senders the writer stops after the queued requests.
        self.requests = closed;
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn revision(&self) -> Result<Revision> {
        if self.requests.is_closed() {
            return Err(StoreError::Closed);
        }
        Ok(read_lock(&self.shared.index).revision())
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<(Option<KeyValue>, Revision)> {
        let key = Bytes::copy_from_slice(key);
        loop {
            let (revision, version) = {
                let index = read_lock(&self.shared.index);
                let revision = index.readable(at)?;
                (revision, index.at(&key, revision))
            };
            let Some(version) = version else {
                return Ok((None, revision));
            };
            let wanted = vec![(key.clone(), version)];
            if let Some(mut items) = self.read(wanted, revision).await? {
                return Ok((items.pop(), revision));
            }
        }
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage> {
        loop {
            let (revision, page, count) = {
                let index = read_lock(&self.shared.index);
                let revision = index.readable(request.at)?;
                let page = index.page(&request.range, revision, request.limit);
                let count = request.count.then(|| {
                    if page.more || request.limit.is_some() {
                        index.count(&request.range, revision)
                    } else {
                        page.items.len() as u64
                    }
                });
                (revision, page, count)
            };
            if let Some(items) = self.read(page.items, revision).await? {
                return Ok(RangePage { items, more: page.more, revision, count });
            }
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        limits::check_txn(&txn, &LIMITS)?;
        if txn.operations.is_empty() && txn.conditions.is_empty() {
            let revision = self.revision().await?;
            return Ok(TxnOutcome::Committed { revision });
        }
        self.ask(|reply| Request::Txn(txn, reply)).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        read_lock(&self.shared.index).readable(Some(request.after))?;
        Ok(watch::stream(self.shared.clone(), request))
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        self.ask(|reply| Request::Compact(at, reply)).await
    }

    async fn compacted_at(&self) -> Result<Revision> {
        Ok(read_lock(&self.shared.index).compacted_at())
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<Lease> {
        limits::check_ttl(ttl)?;
        self.ask(|reply| Request::Grant(ttl, reply)).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease> {
        self.ask(|reply| Request::KeepAlive(id, reply)).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision> {
        self.ask(|reply| Request::Revoke(id, reply)).await
    }

    async fn lease(&self, id: LeaseId) -> Result<Lease> {
        self.ask(|reply| Request::Lease(id, reply)).await
    }

    async fn used_bytes(&self) -> Result<u64> {
        self.shared
            .readers
            .run(|conn| {
                let number = |pragma: &str| {
                    let read = conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
                    read.map_err(|source| StoreError::backend("read the size of the database", source))
                };
                let pages = number("page_count")? - number("freelist_count")?;
                Ok(u64::try_from(pages * number("page_size")?).unwrap_or(0))
            })
            .await
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    /// Afterwards the folder can be opened again.
    async fn close(&self) {
        // Sending fails if the writer has already stopped.
        let _ = self.requests.send(Request::Close).await;
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl EmbeddedStore {
    /// Reads the values of versions that were live at `revision`. `None` if a compaction has removed them meanwhile: the caller
    /// reads the index again, which either has newer versions or reports that the revision is compacted.
    async fn read(&self, wanted: Vec<(Bytes, Version)>, revision: Revision) -> Result<Option<Vec<KeyValue>>> {
        if wanted.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let shared = self.shared.clone();
        self.shared
            .readers
            .run(move |conn| {
                let transaction =
                    conn.unchecked_transaction().map_err(|source| StoreError::backend("begin to read", source))?;
                let mut items = Vec::with_capacity(wanted.len());
                for (key, version) in wanted {
                    match rows::read_row(&transaction, &key, version.row)? {
                        Some(item) => items.push(item),
                        None if read_lock(&shared.index).compacted_at() > revision => {
                            return Ok(None);
                        }
                        None => {
                            return Err(StoreError::Damaged {
                                key,
                                revision: version.row.revision(),
                                detail: "its row is missing".to_owned(),
                            });
                        }
                    }
                }
                Ok(Some(items))
            })
            .await
    }
}

/// Locks a mutex even if a holder panicked: a panic of the writer closes the store.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write_lock<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
