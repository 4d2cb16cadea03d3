//! The backend in an etcd cluster, version 3.4 or newer, for several control nodes.
//!
//! - [`address`]: `etcd://…`. [`client`]: calls to the members. [`proto`]: what is said. [`error`]: what is answered.
//! - [`keys`]: how keys, values and revisions stand in etcd. [`txn`]: transactions. [`watch`]: one watch.
//!
//! The contract is modelled on etcd, so most of it is etcd's own promise; what is added here:
//! - etcd has no checksum with a value: one is kept behind each.
//! - etcd does not say at which revision it was compacted: it is searched for, by asking which revisions can be read.
//! - Watches follow all keys of the etcd, so that every revision is seen and a gap in them is noticed, and so that the
//!   keys of others move the progress. An etcd with access rules must allow that; it should serve this cloud alone.
//! - [`Store::compact`] first lets the watches of this process receive what it is about to forget: etcd reads previous
//!   values when it sends, and leaves out silently what it no longer has.

mod address;
mod client;
mod error;
mod keys;
mod proto;
mod txn;
mod watch;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tonic::Status;

use crate::contract::{
    KeyRange, KeyValue, Lease, LeaseId, Limits, RangePage, RangeRequest, Result, Revision, Store, Txn, TxnOutcome,
    WatchRequest, WatchStream,
};
use crate::error::StoreError;
use crate::limits;

pub use address::{Address, AddressError};
pub use error::OpenError;

use client::{Client, Effect};
use error::{Refusal, Said, failed, refusal};
use keys::Keys;

/// What an etcd with its own settings accepts (1.5 MiB a request, 128 operations a transaction), less room for what this
/// backend and the protocol add.
const LIMITS: Limits = Limits { key_bytes: 2048, value_bytes: 1_500_000, operations: 128, txn_bytes: 1_540_000 };

/// How long a compaction waits for watches of this process at most. They take what etcd sends at once, so this only ends
/// the wait for one whose connection is gone.
const COMPACTION_WAIT: Duration = Duration::from_secs(5);

const RANGE: &str = "/etcdserverpb.KV/Range";
const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const LEASE_TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

/// What TLS to etcd is set up from, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// The authority that has signed the members' certificates.
    pub ca: Vec<u8>,
    /// The certificate that this client shows, and its key, where the members ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// How to open an [`EtcdStore`].
#[derive(Clone)]
pub struct Options {
    address: Address,
    tls: Option<Tls>,
}

impl Options {
    /// The store at `address`, without TLS.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Options { address, tls: None }
    }

    /// Uses TLS.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Opens the store, making an empty one if there is none.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(self) -> Result<EtcdStore, OpenError> {
        self.open_at(Revision::ZERO).await.map(|(store, _)| store)
    }

    /// Makes a store whose counter begins at `base`.
    ///
    /// # Errors
    /// As [`Options::open`], and [`OpenError::Exists`].
    pub async fn create(self, base: Revision) -> Result<EtcdStore, OpenError> {
        let address = self.address.clone();
        match self.open_at(base).await? {
            (store, true) => Ok(store),
            (_, false) => Err(OpenError::Exists { address }),
        }
    }

    /// Opens or makes the store, and says whether it was made.
    async fn open_at(self, base: Revision) -> Result<(EtcdStore, bool), OpenError> {
        let Options { address, tls } = self;
        let client = Client::new(&address, tls.as_ref())
            .map_err(|source| OpenError::Tls { address: address.clone(), source })?;
        let unreachable =
            |status: Status| OpenError::Unreachable { address: address.clone(), source: Said(status).into() };
        let key = keys::origin_key(&address.prefix);
        let get = proto::RangeRequest { key: key.clone(), ..Default::default() };
        let put = proto::PutRequest { key: key.clone(), value: keys::origin_value(base), lease: 0 };
        let is_absent = txn::compare(&key, proto::CompareResult::Equal, proto::Target::CreateRevision(0));
        let make = proto::TxnRequest {
            compare: vec![is_absent],
            success: vec![txn::operation(proto::Request::Put(put))],
            failure: Vec::new(),
        };
        // Of two that come at the same time one makes it, and both read what stands there.
        let made: proto::TxnResponse = client.call(TXN, Effect::Write, make).await.map_err(unreachable)?;
        let found: proto::RangeResponse = client.call(RANGE, Effect::Read, get).await.map_err(unreachable)?;
        let keys = found.kvs.first().and_then(|origin| Keys::new(&address.prefix, origin));
        let Some(keys) = keys else {
            return Err(OpenError::Foreign { key: String::from_utf8_lossy(&key).into_owned(), address });
        };
        let inner = Inner {
            compacted: AtomicI64::new(keys.created()),
            client,
            keys,
            closed: tokio::sync::watch::Sender::new(false),
            positions: Mutex::default(),
        };
        Ok((EtcdStore { inner: Arc::new(inner), address }, made.succeeded))
    }
}

/// What operations and watches share.
struct Inner {
    client: Client,
    keys: Keys,
    /// The newest compaction that is known of, in etcd's revisions; never goes back.
    compacted: AtomicI64,
    closed: tokio::sync::watch::Sender<bool>,
    /// How far the watches of this process have come.
    positions: Mutex<Vec<Weak<watch::Position>>>,
}

/// A store in an etcd cluster.
pub struct EtcdStore {
    inner: Arc<Inner>,
    address: Address,
}

impl EtcdStore {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Removes the store with all that is in it: what a copy that failed has left.
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    pub async fn erase(self) -> Result<()> {
        self.close().await;
        let all = KeyRange::prefix(format!("{}/", self.address.prefix));
        let request = proto::DeleteRangeRequest { key: all.start, range_end: all.end.unwrap_or_default() };
        let erased: Result<proto::DeleteRangeResponse, _> =
            self.inner.client.call(DELETE_RANGE, Effect::Read, request).await;
        erased.map(drop).map_err(|status| failed("remove the store", status))
    }
}

impl Inner {
    fn check_open(&self) -> Result<()> {
        if *self.closed.borrow() { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Asks for a range of etcd's keys.
    async fn range(&self, request: proto::RangeRequest) -> Result<proto::RangeResponse, Status> {
        self.client.call(RANGE, Effect::Read, request).await
    }

    /// Reads one key that always exists, as of one of etcd's revisions (0: the newest), and nothing of it: whether that
    /// revision can be read, and which one is the newest.
    async fn probe(&self, revision: i64) -> Result<i64, Status> {
        let request =
            proto::RangeRequest { key: self.keys.key(b""), limit: 1, revision, count_only: true, ..Default::default() };
        Ok(header(self.range(request).await?.header))
    }

    async fn revision(&self) -> Result<Revision> {
        let newest = self.probe(0).await.map_err(|status| failed("read the revision", status))?;
        Ok(self.keys.revision(newest))
    }

    /// The revision of the last compaction, in etcd's counting: the oldest that can be read.
    async fn compacted(&self) -> Result<i64, Status> {
        let known = self.compacted.load(Ordering::Relaxed);
        let mut newest = match self.probe(known).await {
            Ok(_) => return Ok(known),
            Err(status) if refusal(&status) == Refusal::Compacted => self.probe(0).await?,
            Err(status) => return Err(status),
        };
        let mut gone = known;
        while gone + 1 < newest {
            let middle = gone + (newest - gone) / 2;
            match self.probe(middle).await {
                Ok(_) => newest = middle,
                Err(status) if refusal(&status) == Refusal::Compacted => gone = middle,
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

    /// A read at `requested` that failed.
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

    /// etcd's revision for a read; 0 for the newest.
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
            // It fails when the watch ends, which is as good.
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
        self.inner.check_open()?;
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
        inner.wait_for_watches(at).await;
        let request = proto::CompactionRequest { revision };
        let compacted: Result<proto::CompactionResponse, _> = inner.client.call(COMPACT, Effect::Read, request).await;
        match compacted {
            Ok(_) => {
                inner.compacted.fetch_max(revision, Ordering::Relaxed);
                Ok(())
            }
            // Another control node was faster.
            Err(status) if refusal(&status) == Refusal::Compacted => Ok(()),
            Err(status) => Err(inner.read_failed("compact", at, status).await),
        }
    }

    async fn compacted_at(&self) -> Result<Revision> {
        self.inner.check_open()?;
        self.inner.compacted_at().await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<Lease> {
        self.inner.check_open()?;
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
        self.inner.check_open()?;
        let failed = |status| failed("renew a lease", status);
        let question = proto::LeaseKeepAliveRequest { id: id.0 as i64 };
        // The stream stays open until the answer is there.
        let questions = futures::stream::once(async move { question }).chain(futures::stream::pending());
        let mut answers = self.inner.client.stream(LEASE_KEEP_ALIVE, questions).await.map_err(failed)?;
        let answer: Option<proto::LeaseKeepAliveResponse> = answers.message().await.map_err(failed)?;
        match answer {
            Some(renewed) if renewed.ttl > 0 => Ok(Lease { id, ttl: seconds(renewed.ttl) }),
            Some(_) => Err(StoreError::LeaseNotFound { id }),
            None => Err(failed(Status::unavailable("the stream ended without an answer"))),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision> {
        self.inner.check_open()?;
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
    }
}

/// The range that holds every key of an etcd.
fn all_of_etcd() -> (Bytes, Bytes) {
    (Bytes::from_static(&[0]), Bytes::from_static(&[0]))
}
