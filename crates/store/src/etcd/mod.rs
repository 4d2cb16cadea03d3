//! The backend in an etcd cluster, version 3.4 or newer, for several control nodes.
//!
//! - [`address`]: `etcd://…`. [`client`]: calls to the members. [`proto`]: messages. [`error`]: errors.
//! - [`open`]: opening a store. [`claim`]: exclusive use of a store. [`keeper`]: renewing the claim.
//! - [`keys`]: the mapping of keys, values and revisions. [`txn`]: transactions. [`watch`]: one watch.
//!
//! The contract is modelled on etcd, so etcd itself guarantees most of it. Added here:
//! - etcd has no checksums of values: one is appended to each value.
//! - etcd does not report the revision of the last compaction: it is found by probing which revisions can be read.
//! - Watches follow all keys of the etcd, so that every revision is seen and gaps are detected, and so that writes of others
//!   advance the progress. An etcd with access control must allow that; it should serve only this cloud.
//! - A store is used by one process: etcd compares its claim in every transaction.
//! - [`Store::compact`] first lets the watches of this process receive what it is about to forget: etcd reads previous values
//!   when it sends, and silently omits those that are compacted.

mod address;
mod claim;
mod client;
mod error;
mod keeper;
mod keys;
mod open;
mod proto;
mod txn;
mod watch;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tonic::Status;

use crate::contract::{
    KeyRange, KeyValue, Lease, LeaseId, Limits, RangePage, RangeRequest, Result, Revision, Store, Txn, TxnOutcome,
    WatchRequest, WatchStream,
};
use crate::embedded::FatalHook;
use crate::error::StoreError;
use crate::limits;

pub use address::{Address, AddressError};
pub use client::Tls;
pub use error::OpenError;
pub use open::Options;

use claim::Owner;
use client::{Client, Effect};
use error::{Refusal, failed, refusal};
use keeper::{Held, Keeper, Lost};
use keys::Keys;

/// The default limits of etcd (1.5 MiB per request, 128 operations and comparisons per transaction), less what this backend and
/// the protocol add: the claim is one of each.
const LIMITS: Limits = Limits { key_bytes: 2048, value_bytes: 1_500_000, operations: 127, txn_bytes: 1_540_000 };

/// The maximum time that a compaction waits for watches of this process. They read at once what etcd sends, so this only ends the
/// wait for a watch whose connection is lost.
const COMPACTION_WAIT: Duration = Duration::from_secs(5);

/// How long a process that has lost its claim tries to read the new holder, for its last message.
const LOSS_TIMEOUT: Duration = Duration::from_secs(2);

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

/// The state shared by operations and watches.
struct Inner {
    client: Client,
    address: Address,
    keys: Keys,
    /// `None` if the store is read-only.
    claim: Option<Held>,
    fatal: FatalHook,
    /// The newest known compaction, in etcd's revisions; never decreases.
    compacted: AtomicI64,
    closed: tokio::sync::watch::Sender<bool>,
    /// The progress of the watches of this process.
    positions: Mutex<Vec<Weak<watch::Position>>>,
}

/// A store in an etcd cluster.
pub struct EtcdStore {
    inner: Arc<Inner>,
    /// Until it is closed.
    keeper: Mutex<Option<Keeper>>,
}

impl EtcdStore {
    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.inner.address
    }

    /// Removes the store and all its contents, for example after a failed copy.
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    pub async fn erase(self) -> Result<()> {
        let all = KeyRange::prefix(format!("{}/", self.inner.address.prefix));
        let erased = txn::erase(&self.inner, all).await;
        self.close().await;
        erased
    }
}

impl Inner {
    fn check_open(&self) -> Result<()> {
        if *self.closed.borrow() { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Returns the claim that allows changes.
    fn held(&self) -> Result<Held> {
        self.check_open()?;
        self.claim.ok_or_else(|| StoreError::InvalidRequest("the store was opened to be read".to_owned()))
    }

    /// Checks that the claim is still held, for operations that cannot be part of a transaction.
    async fn check_claim(&self, operation: &'static str) -> Result<()> {
        let held = self.held()?;
        let request = proto::RangeRequest { key: claim::key(&self.address.prefix), ..Default::default() };
        let found = self.range(request).await.map_err(|status| failed(operation, status))?;
        if found.kvs.first().is_some_and(|claim| claim.mod_revision == held.revision) {
            return Ok(());
        }
        self.lose().await;
        Err(StoreError::Closed)
    }

    /// Closes the store permanently, because this process has lost its claim.
    async fn lose(&self) {
        if self.closed.send_replace(true) {
            // Already closed: the claim was released.
            return;
        }
        let request = proto::RangeRequest { key: claim::key(&self.address.prefix), ..Default::default() };
        let found = tokio::time::timeout(LOSS_TIMEOUT, self.range(request)).await;
        let holder = found.ok().and_then(Result::ok).and_then(|found| found.kvs.into_iter().next());
        let address = self.address.clone();
        (self.fatal)(&match holder {
            Some(claim) => Lost::Taken { address, holder: Owner::decode(&claim.value) },
            None => Lost::Ended { address },
        });
    }

    /// Reads a range of etcd's keys.
    async fn range(&self, request: proto::RangeRequest) -> Result<proto::RangeResponse, Status> {
        self.client.call(RANGE, Effect::Read, request).await
    }

    /// Probes an etcd revision (0: the newest) with a read of a key that always exists, without its value: returns whether the
    /// revision can be read, and the newest revision.
    async fn probe(&self, revision: i64) -> Result<i64, Status> {
        let request =
            proto::RangeRequest { key: self.keys.key(b""), limit: 1, revision, count_only: true, ..Default::default() };
        Ok(header(self.range(request).await?.header))
    }

    async fn revision(&self) -> Result<Revision> {
        let newest = self.probe(0).await.map_err(|status| failed("read the revision", status))?;
        Ok(self.keys.revision(newest))
    }

    /// Returns the etcd revision of the last compaction: the oldest that can be read.
    async fn compacted(&self) -> Result<i64, Status> {
        let known = self.compacted.load(Ordering::Relaxed);
        let mut newest = match self.probe(known).await {
            Ok(_) => return Ok(known),
            Err(status) if refusal(&status) == Refusal::Compacted => self.probe(0).await?,
            Err(status) => return Err(status),
        };
        let mut deleted = known;
        while deleted + 1 < newest {
            let middle = deleted + (newest - deleted) / 2;
            match self.probe(middle).await {
                Ok(_) => newest = middle,
                Err(status) if refusal(&status) == Refusal::Compacted => deleted = middle,
                Err(status) => return Err(status),
            }
        }
        self.compacted.fetch_max(newest, Ordering::Relaxed);
        Ok(newest)
    }

    async fn compacted_at(&self) -> Result<Revision> {
        let compacted = self.compacted().await.map_err(|status| failed("read the last compaction", status))?;
        Ok(self.keys.revision(compacted))
    }

    /// Converts the error of a read at `requested`.
    async fn read_failed(&self, operation: &'static str, requested: Revision, status: Status) -> StoreError {
        match refusal(&status) {
            Refusal::Compacted => self.is_compacted(requested).await,
            Refusal::Future => self.is_future(requested).await,
            _ => failed(operation, status),
        }
    }

    async fn is_compacted(&self, requested: Revision) -> StoreError {
        match self.compacted_at().await {
            Ok(compacted_at) => StoreError::Compacted { requested, compacted_at },
            Err(error) => error,
        }
    }

    async fn is_future(&self, requested: Revision) -> StoreError {
        match self.revision().await {
            Ok(current) => StoreError::FutureRevision { requested, current },
            Err(error) => error,
        }
    }

    /// Returns the etcd revision for a read; 0 for the newest.
    async fn readable(&self, at: Option<Revision>) -> Result<i64> {
        let Some(at) = at else { return Ok(0) };
        match self.keys.etcd_revision(at) {
            Some(revision) => Ok(revision),
            None if at < self.keys.base() => Err(self.is_compacted(at).await),
            None => Err(self.is_future(at).await),
        }
    }

    /// Whether a lease has not ended.
    async fn time_to_live(&self, id: LeaseId) -> Result<Option<Lease>> {
        let request = proto::LeaseTimeToLiveRequest { id: id.0 as i64 };
        let answer: Result<proto::LeaseTimeToLiveResponse, _> =
            self.client.call(LEASE_TIME_TO_LIVE, Effect::Read, request).await;
        match answer {
            Ok(lease) if lease.ttl >= 0 && lease.granted_ttl > 0 => {
                Ok(Some(Lease { id, ttl: seconds(lease.granted_ttl) }))
            }
            Ok(_) => Ok(None),
            Err(status) if refusal(&status) == Refusal::LeaseNotFound => Ok(None),
            Err(status) => Err(failed("look up a lease", status)),
        }
    }

    /// Waits until the watches of this process have received everything up to `at`.
    async fn wait_for_watches(&self, at: Revision) {
        let positions: Vec<_> = {
            let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
            positions.retain(|position| position.strong_count() > 0);
            positions.iter().filter_map(|position| Some(position.upgrade()?.subscribe())).collect()
        };
        let all = futures::future::join_all(positions.into_iter().map(|mut position| async move {
            // It fails when the watch ends, which has the same effect.
            let _ = position.wait_for(|position| *position >= at).await;
        }));
        let _ = tokio::time::timeout(COMPACTION_WAIT, all).await;
    }
}

fn header(header: Option<proto::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

#[async_trait]
impl Store for EtcdStore {
    async fn revision(&self) -> Result<Revision> {
        self.inner.check_open()?;
        self.inner.revision().await
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<(Option<KeyValue>, Revision)> {
        let inner = &*self.inner;
        inner.check_open()?;
        let revision = inner.readable(at).await?;
        let request = proto::RangeRequest { key: inner.keys.key(key), revision, ..Default::default() };
        let found = match inner.range(request).await {
            Ok(found) => found,
            Err(status) => return Err(inner.read_failed("read a key", at.unwrap_or_default(), status).await),
        };
        let item = found.kvs.first().map(|item| inner.keys.item(item)).transpose()?;
        Ok((item, at.unwrap_or_else(|| inner.keys.revision(header(found.header)))))
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage> {
        let inner = &*self.inner;
        inner.check_open()?;
        let revision = inner.readable(request.at).await?;
        let requested = request.at.unwrap_or_default();
        let Some((key, range_end)) = inner.keys.range(&request.range) else {
            let newest = match inner.probe(revision).await {
                Ok(newest) => newest,
                Err(status) => return Err(inner.read_failed("read a range", requested, status).await),
            };
            let revision = request.at.unwrap_or_else(|| inner.keys.revision(newest));
            let count = request.count.then_some(0);
            return Ok(RangePage { items: Vec::new(), more: false, revision, count });
        };
        let limit = request.limit.map_or(0, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let count_only = request.limit == Some(0);
        let question = proto::RangeRequest { key, range_end, limit, revision, count_only };
        let found = match inner.range(question).await {
            Ok(found) => found,
            Err(status) => return Err(inner.read_failed("read a range", requested, status).await),
        };
        let items = found.kvs.iter().map(|item| inner.keys.item(item)).collect::<Result<Vec<_>>>()?;
        Ok(RangePage {
            items,
            more: if count_only { found.count > 0 } else { found.more },
            revision: request.at.unwrap_or_else(|| inner.keys.revision(header(found.header))),
            count: request.count.then(|| u64::try_from(found.count).unwrap_or(0)),
        })
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome> {
        self.inner.held()?;
        limits::check_txn(&txn, &LIMITS)?;
        if txn.operations.is_empty() && txn.conditions.is_empty() {
            let revision = self.inner.revision().await?;
            return Ok(TxnOutcome::Committed { revision });
        }
        txn::run(&self.inner, txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        self.inner.check_open()?;
        watch::begin(self.inner.clone(), request).await
    }

    async fn compact(&self, at: Revision) -> Result<()> {
        let inner = &*self.inner;
        inner.check_open()?;
        let Some(revision) = inner.keys.etcd_revision(at) else {
            return if at < inner.keys.base() { Ok(()) } else { Err(inner.is_future(at).await) };
        };
        match inner.probe(revision).await {
            Ok(_) => {}
            Err(status) if refusal(&status) == Refusal::Compacted => return Ok(()),
            Err(status) => return Err(inner.read_failed("compact", at, status).await),
        }
        inner.check_claim("compact").await?;
        inner.wait_for_watches(at).await;
        let request = proto::CompactionRequest { revision };
        let compacted: Result<proto::CompactionResponse, _> = inner.client.call(COMPACT, Effect::Read, request).await;
        match compacted {
            Ok(_) => {
                inner.compacted.fetch_max(revision, Ordering::Relaxed);
                Ok(())
            }
            // Another cloud that shares the etcd, or an operator, has compacted it already.
            Err(status) if refusal(&status) == Refusal::Compacted => Ok(()),
            Err(status) => Err(inner.read_failed("compact", at, status).await),
        }
    }

    async fn compacted_at(&self) -> Result<Revision> {
        self.inner.check_open()?;
        self.inner.compacted_at().await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<Lease> {
        self.inner.held()?;
        limits::check_ttl(ttl)?;
        // etcd counts in seconds.
        let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = proto::LeaseGrantRequest { ttl: i64::try_from(whole).unwrap_or(i64::MAX) };
        let granted: proto::LeaseGrantResponse = self
            .inner
            .client
            .call(LEASE_GRANT, Effect::Write, request)
            .await
            .map_err(|status| failed("grant a lease", status))?;
        Ok(Lease { id: LeaseId(granted.id as u64), ttl: seconds(granted.ttl) })
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease> {
        self.inner.held()?;
        match keeper::renew(&self.inner.client, id.0 as i64).await {
            Ok(Some(ttl)) => Ok(Lease { id, ttl }),
            Ok(None) => Err(StoreError::LeaseNotFound { id }),
            Err(status) => Err(failed("renew a lease", status)),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision> {
        // etcd does not revoke in a transaction.
        self.inner.check_claim("revoke a lease").await?;
        let request = proto::LeaseRevokeRequest { id: id.0 as i64 };
        let revoked: Result<proto::LeaseRevokeResponse, _> =
            self.inner.client.call(LEASE_REVOKE, Effect::Write, request).await;
        match revoked {
            Ok(answer) => Ok(self.inner.keys.revision(header(answer.header))),
            Err(status) if refusal(&status) == Refusal::LeaseNotFound => Err(StoreError::LeaseNotFound { id }),
            Err(status) => Err(failed("revoke a lease", status)),
        }
    }

    async fn lease(&self, id: LeaseId) -> Result<Lease> {
        self.inner.check_open()?;
        self.inner.time_to_live(id).await?.ok_or(StoreError::LeaseNotFound { id })
    }

    async fn used_bytes(&self) -> Result<u64> {
        self.inner.check_open()?;
        let status: proto::StatusResponse = self
            .inner
            .client
            .call(STATUS, Effect::Read, proto::StatusRequest {})
            .await
            .map_err(|status| failed("read the size of the database", status))?;
        Ok(u64::try_from(status.db_size_in_use).unwrap_or(0))
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    async fn close(&self) {
        self.inner.closed.send_replace(true);
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            keeper.stop().await;
        }
    }
}

/// Returns the range of all keys of an etcd.
fn all_of_etcd() -> (Bytes, Bytes) {
    (Bytes::from_static(&[0]), Bytes::from_static(&[0]))
}
