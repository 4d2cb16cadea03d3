//! All stored objects and claims in memory, as of one revision.
//!
//! One watch of the whole store feeds all kinds, so the cache knows one revision R for all of them. A reader that must see every
//! acknowledged write asks the store for its revision and waits until the cache has reached it. Writers read the cache too: the
//! store compares the revisions that they saw when they write.

pub mod change;
mod feed;
pub mod index;
pub mod kind;
pub mod ledgers;
pub mod object;
pub mod relations;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use evroc_store::Store;
use thiserror::Error;
use tokio::sync::{broadcast, watch};

use self::change::Change;
use self::kind::KindCache;
use self::ledgers::Ledgers;
use self::relations::Relations;
use crate::object::registry::{GroupResource, Registered, Registry};
use crate::state::lanes::Lanes;

/// The time that a read waits for the cache to reach a revision, as in Kubernetes.
const FRESH_TIMEOUT: Duration = Duration::from_secs(3);
/// The number of changes that controllers in the server may lag behind before they check everything again.
const FEED_QUEUE: usize = 8_192;

/// The reason why a read cannot be answered from the cache.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The revision has not happened, or the cache is slow.
    #[error("cache is at revision {current}, {requested} was requested")]
    Behind {
        /// The requested revision.
        requested: u64,
        /// The revision of the cache.
        current: u64,
    },
    /// The store failed.
    #[error("read the revision of the store")]
    Store(#[from] evroc_store::StoreError),
}

/// A claim and its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldClaim {
    /// The revision that wrote it.
    pub revision: u64,
    /// The holder.
    pub holder: crate::state::storage::claims::Holder,
}

/// A change of any kind, for controllers in the server.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The kind of the changed object.
    pub registered: Arc<Registered>,
    /// The change.
    pub change: Arc<Change>,
}

/// The whole cache.
pub struct Cache {
    store: Arc<dyn Store>,
    kinds: HashMap<GroupResource, (Arc<Registered>, Arc<KindCache>)>,
    claims: RwLock<HashMap<String, HeldClaim>>,
    relations: RwLock<Relations>,
    ledgers: RwLock<Ledgers>,
    lanes: Arc<Lanes>,
    revision: watch::Sender<u64>,
    notices: broadcast::Sender<Notice>,
    healthy: watch::Sender<bool>,
}

impl Cache {
    /// Loads everything from the store and follows it from then on.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn start(store: Arc<dyn Store>, registry: &Registry) -> Result<Arc<Self>, evroc_store::StoreError> {
        let kinds = registry
            .stored()
            .map(|registered| (registered.storage.clone(), (registered.clone(), Arc::new(KindCache::default()))))
            .collect();
        let cache = Arc::new(Cache {
            store,
            kinds,
            claims: RwLock::default(),
            relations: RwLock::default(),
            ledgers: RwLock::default(),
            lanes: Arc::default(),
            revision: watch::Sender::new(0),
            notices: broadcast::Sender::new(FEED_QUEUE),
            healthy: watch::Sender::new(true),
        });
        let revision = feed::load(&cache).await?;
        let stream = feed::follow(&cache, revision).await?;
        tokio::spawn(feed::run(Arc::downgrade(&cache), stream));
        Ok(cache)
    }

    /// Returns the cache of a kind.
    ///
    /// # Panics
    /// Never for registered kinds: each has its storage.
    pub fn kind(&self, storage: &GroupResource) -> &Arc<KindCache> {
        &self.kinds[storage].1
    }

    /// Whether a kind is stored.
    pub fn has(&self, storage: &GroupResource) -> bool {
        self.kinds.contains_key(storage)
    }

    /// Returns all stored kinds with their caches.
    pub fn kinds(&self) -> impl Iterator<Item = (&Arc<Registered>, &Arc<KindCache>)> {
        self.kinds.values().map(|(registered, kind)| (registered, kind))
    }

    /// Returns the revision that the cache has reached.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Whether the store is being followed.
    pub fn is_healthy(&self) -> bool {
        *self.healthy.borrow()
    }

    /// Waits until the cache has seen every write that was acknowledged before the call; returns its revision.
    ///
    /// # Errors
    /// If the store fails or the cache does not reach the revision in time.
    pub async fn catch_up(&self) -> Result<u64, CacheError> {
        let revision = self.store.revision().await?.0;
        self.wait_for(revision).await?;
        Ok(self.revision())
    }

    /// Waits until the cache has reached `revision`.
    ///
    /// # Errors
    /// If the cache does not reach it in time.
    pub async fn wait_for(&self, revision: u64) -> Result<(), CacheError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut receiver = self.revision.subscribe();
        let reached = tokio::time::timeout(FRESH_TIMEOUT, receiver.wait_for(|current| *current >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(CacheError::Behind { requested: revision, current: self.revision() }),
        }
    }

    /// Returns the holder of a claim.
    pub fn claim(&self, key: &str) -> Option<HeldClaim> {
        self.claims.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Runs `look` on the owner relations.
    pub fn relations<T>(&self, look: impl FnOnce(&Relations) -> T) -> T {
        look(&self.relations.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `look` on the sums of the ledgers.
    pub fn ledgers<T>(&self, look: impl FnOnce(&Ledgers) -> T) -> T {
        look(&self.ledgers.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the writes of ledgers that are under way.
    pub(crate) fn lanes(&self) -> &Arc<Lanes> {
        &self.lanes
    }

    /// Returns a receiver of the changes of all kinds from now on.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }
}
