//! Opens a store: reads its origin and claim, decides, and claims it in the transaction that creates it.

use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use super::claim::{self, Decision, FolderLock, Locking, Owner, decide};
use super::client::{Client, Effect, Tls};
use super::error::{OpenError, ServerStatus};
use super::keeper::{self, Held, Keeper};
use super::keys::{self, Keys};
use super::{Address, EtcdStore, Inner, LEASE_GRANT, LEASE_TIME_TO_LIVE, TXN, header, proto, seconds, txn};
use crate::contract::Revision;
use crate::embedded::FatalHook;

/// How long a claim lasts without a renewal. Lower ends a process that was stalled for that long; higher delays a takeover after
/// the loss of a machine.
const CLAIM_TTL: Duration = Duration::from_secs(30);
/// The interval between checks of a claim that may be about to end.
const LOOK: Duration = Duration::from_millis(500);
/// How late etcd may end a lease: it counts in whole seconds, and checks twice a second.
const END_MARGIN: Duration = Duration::from_secs(3);

/// Options for opening an [`EtcdStore`].
#[derive(Clone)]
pub struct Options {
    address: Address,
    tls: Option<Tls>,
    instance: Option<String>,
    home: Option<PathBuf>,
    ttl: Duration,
    fatal: FatalHook,
}

/// The purpose of opening a store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Use it, and create it if it does not exist.
    Use,
    /// Create it, with this initial revision.
    Make(Revision),
}

impl Options {
    /// Returns options for the store at `address`, without TLS.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Options {
            address,
            tls: None,
            instance: None,
            home: None,
            ttl: CLAIM_TTL,
            fatal: Arc::new(|error| {
                tracing::error!(%error, "store lost, ending the process");
                std::process::abort();
            }),
        }
    }

    /// Uses TLS.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the instance's name, which others see in messages.
    #[must_use]
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = Some(name.into());
        self
    }

    /// Sets a folder of the instance, which is locked while the store is open: the holder of a former holder's lock takes over
    /// its claim at once. Without it, a claim that was not released has to expire first.
    #[must_use]
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// Sets how long the claim lasts when this process cannot renew it (default: 30 s); etcd's minimum is about 2 s.
    #[must_use]
    pub fn claim_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets the hook for a lost claim. The default logs the cause and aborts the process. If the hook returns, the store is
    /// closed: every operation fails with [`StoreError::Closed`](crate::StoreError::Closed).
    #[must_use]
    pub fn on_fatal(mut self, hook: impl Fn(&(dyn std::error::Error + 'static)) + Send + Sync + 'static) -> Self {
        self.fatal = Arc::new(hook);
        self
    }

    /// Opens the store, and creates an empty one if it does not exist.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(self) -> Result<EtcdStore, OpenError> {
        self.claimed(Purpose::Use).await
    }

    /// Creates a store whose counter begins at `base`.
    ///
    /// # Errors
    /// As [`Options::open`], and [`OpenError::Exists`].
    pub async fn create(self, base: Revision) -> Result<EtcdStore, OpenError> {
        self.claimed(Purpose::Make(base)).await
    }

    /// Opens an existing store for reading, also while another process uses it.
    ///
    /// # Errors
    /// As [`Options::open`], and [`OpenError::Missing`].
    pub async fn open_to_read(self) -> Result<EtcdStore, OpenError> {
        let etcd = self.connect()?;
        let Some(origin) = etcd.look().await?.origin else { return Err(OpenError::Missing { address: self.address }) };
        let keys = etcd.keys(&origin)?;
        Ok(self.finish(etcd.client, keys, None))
    }

    fn connect(&self) -> Result<Unopened, OpenError> {
        let address = self.address.clone();
        match Client::new(&address, self.tls.as_ref()) {
            Ok(client) => Ok(Unopened { client, address }),
            Err(source) => Err(OpenError::Tls { address, source }),
        }
    }

    async fn claimed(self, purpose: Purpose) -> Result<EtcdStore, OpenError> {
        let etcd = self.connect()?;
        let lock = match self.home.as_deref().map(FolderLock::take) {
            None => None,
            Some(Locking::Locked(lock)) => Some(lock),
            Some(Locking::Held) => return Err(etcd.locked().await?),
            Some(Locking::Impossible(error)) => {
                // Everything else works, but after a crash this instance waits until its claim has expired.
                tracing::warn!(%error, "locking the instance's folder failed");
                None
            }
        };
        let owner = Owner::new(self.instance.clone(), lock.as_ref(), jiff::Timestamp::now());
        let (keys, held) = etcd.claim(&owner, self.ttl, purpose).await?;
        Ok(self.finish(etcd.client, keys, Some((held, lock))))
    }

    fn finish(self, client: Client, keys: Keys, claim: Option<(Held, Option<FolderLock>)>) -> EtcdStore {
        let inner = Arc::new(Inner {
            compacted: AtomicI64::new(keys.created()),
            client,
            address: self.address,
            keys,
            claim: claim.as_ref().map(|(held, _)| *held),
            fatal: self.fatal,
            closed: tokio::sync::watch::Sender::new(false),
            positions: Mutex::default(),
        });
        let keeper = claim.map(|(held, lock)| Keeper::start(inner.clone(), held, lock));
        EtcdStore { inner, keeper: Mutex::new(keeper) }
    }
}

/// An etcd in which a store is opened.
struct Unopened {
    client: Client,
    address: Address,
}

/// The state of a prefix.
struct Found {
    origin: Option<proto::KeyValue>,
    claim: Option<proto::KeyValue>,
}

impl Unopened {
    fn unreachable(&self, status: Status) -> OpenError {
        OpenError::Unreachable { address: self.address.clone(), source: ServerStatus(status).into() }
    }

    fn keys(&self, origin: &proto::KeyValue) -> Result<Keys, OpenError> {
        Keys::new(&self.address.prefix, origin).ok_or_else(|| OpenError::Foreign {
            key: String::from_utf8_lossy(&keys::origin_key(&self.address.prefix)).into_owned(),
            address: self.address.clone(),
        })
    }

    /// Reads both keys at one revision.
    async fn look(&self) -> Result<Found, OpenError> {
        let prefix = &self.address.prefix;
        let read = |key| txn::operation(proto::Request::Range(proto::RangeRequest { key, ..Default::default() }));
        let request = proto::TxnRequest {
            compare: Vec::new(),
            success: vec![read(keys::origin_key(prefix)), read(claim::key(prefix))],
            failure: Vec::new(),
        };
        let answer: Result<proto::TxnResponse, _> = self.client.call(TXN, Effect::Read, request).await;
        let mut found = answer
            .map_err(|status| self.unreachable(status))?
            .responses
            .into_iter()
            .map(|response| response.range.and_then(|range| range.kvs.into_iter().next()));
        Ok(Found { origin: found.next().flatten(), claim: found.next().flatten() })
    }

    async fn grant(&self, ttl: Duration) -> Result<proto::LeaseGrantResponse, OpenError> {
        let request = proto::LeaseGrantRequest { ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX) };
        self.client.call(LEASE_GRANT, Effect::Write, request).await.map_err(|status| self.unreachable(status))
    }

    /// Claims the store, and creates it if it does not exist.
    async fn claim(&self, owner: &Owner, ttl: Duration, purpose: Purpose) -> Result<(Keys, Held), OpenError> {
        let mut has_waited = false;
        // Each round sees the changes of other openers; one of them makes progress in each round.
        loop {
            let found = self.look().await?;
            // Keys of other programs are not touched.
            let known = found.origin.as_ref().map(|origin| self.keys(origin)).transpose()?;
            if known.is_some() && purpose != Purpose::Use {
                return Err(OpenError::Exists { address: self.address.clone() });
            }
            match (decide(owner, found.claim.as_ref(), has_waited), &found.claim) {
                (Decision::Wait(holder), Some(claim)) => {
                    tracing::info!(%holder, "waiting for the end of this instance's former claim on the store");
                    self.wait_for_end(claim.lease).await?;
                    has_waited = true;
                    continue;
                }
                (Decision::Refuse(holder), Some(claim)) => return Err(self.in_use(&holder, claim.lease).await?),
                _ => {}
            }
            let granted = self.grant(ttl).await?;
            let claimed = self.try_claim(&found, known, owner, granted.id, purpose).await;
            match claimed {
                Ok(Some((keys, revision))) => {
                    return Ok((keys, Held { revision, lease: granted.id, ttl: seconds(granted.ttl) }));
                }
                Ok(None) => keeper::release(&self.client, granted.id).await,
                Err(error) => {
                    keeper::release(&self.client, granted.id).await;
                    return Err(error);
                }
            }
        }
    }

    /// Writes the claim if nothing has changed since the read; otherwise returns `None`.
    async fn try_claim(
        &self,
        found: &Found,
        known: Option<Keys>,
        owner: &Owner,
        lease: i64,
        purpose: Purpose,
    ) -> Result<Option<(Keys, i64)>, OpenError> {
        let (origin_key, claim_key) = (keys::origin_key(&self.address.prefix), claim::key(&self.address.prefix));
        // 0 means an absent key.
        let as_found = |key, found: &Option<proto::KeyValue>| {
            let revision = found.as_ref().map_or(0, |found| found.mod_revision);
            txn::compare(key, proto::CompareResult::Equal, proto::Target::ModRevision(revision))
        };
        let put = |key, value, lease| txn::operation(proto::Request::Put(proto::PutRequest { key, value, lease }));
        let base = match purpose {
            Purpose::Use => Revision::ZERO,
            Purpose::Make(base) => base,
        };
        let origin = keys::origin_value(base);
        let mut success = vec![put(claim_key.clone(), owner.encode(), lease)];
        if known.is_none() {
            success.push(put(origin_key.clone(), origin.clone(), 0));
        }
        let compare = vec![as_found(&origin_key, &found.origin), as_found(&claim_key, &found.claim)];
        let request = proto::TxnRequest { compare, success, failure: Vec::new() };
        let answer: Result<proto::TxnResponse, _> = self.client.call(TXN, Effect::Write, request).await;
        let answer = answer.map_err(|status| self.unreachable(status))?;
        if !answer.succeeded {
            return Ok(None);
        }
        let revision = header(answer.header);
        let keys = match known {
            Some(keys) => keys,
            None => {
                let made = proto::KeyValue { value: origin, create_revision: revision, ..Default::default() };
                self.keys(&made)?
            }
        };
        Ok(Some((keys, revision)))
    }

    /// Returns the remaining time of a claim's lease in seconds.
    async fn rest(&self, lease: i64) -> Result<i64, OpenError> {
        let request = proto::LeaseTimeToLiveRequest { id: lease };
        let answer: Result<proto::LeaseTimeToLiveResponse, _> =
            self.client.call(LEASE_TIME_TO_LIVE, Effect::Read, request).await;
        Ok(answer.map_err(|status| self.unreachable(status))?.ttl)
    }

    /// Waits until a lease has ended or was renewed.
    async fn wait_for_end(&self, lease: i64) -> Result<(), OpenError> {
        let mut before = self.rest(lease).await?;
        let end = Instant::now() + seconds(before) + END_MARGIN;
        while before >= 0 && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
            let rest = self.rest(lease).await?;
            if rest > before {
                break;
            }
            before = rest;
        }
        Ok(())
    }

    async fn in_use(&self, holder: &Owner, lease: i64) -> Result<OpenError, OpenError> {
        let until = match self.rest(lease).await? {
            _ if lease == 0 => format!("remove the key {}/owner", self.address.prefix),
            rest @ 0.. => format!("wait {} s, until its claim has ended", rest + 1),
            _ => "try again, its claim has just ended".to_owned(),
        };
        Ok(OpenError::InUse { address: self.address.clone(), holder: holder.to_string(), until })
    }

    /// Another process of this machine holds the lock of this instance's folder.
    async fn locked(&self) -> Result<OpenError, OpenError> {
        let claim = self.look().await?.claim;
        let holder = claim.map_or("another process".to_owned(), |claim| Owner::decode(&claim.value).to_string());
        Ok(OpenError::Locked { address: self.address.clone(), holder })
    }
}
