//! Fills the cache from the store: loads everything once, then applies every change in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use evroc_store::{
    Batch, Change as StoreChange, KeyRange, RangeRequest, Revision, StoreError, WatchRequest, WatchStream,
};
use futures::StreamExt;

use super::ledgers::Ledgers;
use super::object::CachedObject;
use super::relations::Relations;
use super::{Cache, HeldClaim, Notice};
use crate::object::registry::GroupResource;
use crate::state::storage::keys::{self, Entry, ObjectKey};

/// Items per page of the first load: limits how much the store holds in memory at once.
const LOAD_PAGE: usize = 2_000;
/// The pause between attempts to follow a store that fails.
const RETRY: Duration = Duration::from_millis(200);

/// A key and its object after a change.
type KeyChange = (ObjectKey, Option<Arc<CachedObject>>);

/// Loads everything as of one revision, and returns that revision.
pub(super) async fn load(cache: &Cache) -> Result<Revision, StoreError> {
    let mut range = KeyRange::all();
    let mut at = None;
    let mut objects: HashMap<GroupResource, BTreeMap<ObjectKey, Arc<CachedObject>>> = HashMap::new();
    let mut claims = HashMap::new();
    let revision = loop {
        let mut request = RangeRequest::new(range.clone()).limit(LOAD_PAGE);
        request.at = at;
        let page = cache.store.range(request).await?;
        at = Some(page.revision);
        for item in &page.items {
            match keys::parse(&item.key) {
                Entry::Object { group, resource, key } => {
                    let storage = GroupResource { group: group.into(), resource: resource.into() };
                    if let Some(object) = decode(cache, &storage, key, item.mod_revision.0, &item.value) {
                        objects.entry(storage).or_default().insert(object.key.clone(), object);
                    }
                }
                Entry::Claim(claim) => {
                    if let Some(held) = decode_claim(item.mod_revision.0, &item.value) {
                        claims.insert(claim.to_owned(), held);
                    }
                }
                Entry::Other => {}
            }
        }
        match page.items.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => break page.revision,
        }
    };
    let mut relations = Relations::default();
    let mut ledgers = Ledgers::default();
    for (storage, (_, kind)) in &cache.kinds {
        let objects = objects.remove(storage).unwrap_or_default();
        for object in objects.values() {
            relations.replace(storage, None, Some(object));
            ledgers.replace(storage, None, Some(object));
        }
        kind.reset(objects, revision.0);
    }
    *cache.relations.write().unwrap_or_else(PoisonError::into_inner) = relations;
    *cache.ledgers.write().unwrap_or_else(PoisonError::into_inner) = ledgers;
    *cache.claims.write().unwrap_or_else(PoisonError::into_inner) = claims;
    cache.revision.send_replace(revision.0);
    Ok(revision)
}

/// Starts a watch of the whole store.
pub(super) async fn follow(cache: &Cache, after: Revision) -> Result<WatchStream, StoreError> {
    cache.store.watch(WatchRequest::new(KeyRange::all(), after).without_previous_values()).await
}

/// Applies changes until the cache is dropped or the store is closed.
pub(super) async fn run(cache: Weak<Cache>, mut stream: WatchStream) {
    loop {
        let error = loop {
            match stream.next().await {
                Some(Ok(batch)) => {
                    let Some(cache) = cache.upgrade() else { return };
                    apply(&cache, &batch);
                }
                Some(Err(error)) => break error,
                None => break StoreError::Closed,
            }
        };
        let Some(cache) = cache.upgrade() else { return };
        cache.healthy.send_replace(false);
        if matches!(error, StoreError::Closed) {
            tracing::info!("the store is closed, the cache stops");
            return;
        }
        tracing::warn!(%error, "the watch of the store ended, starting it again");
        stream = loop {
            match resume(&cache).await {
                Ok(stream) => break stream,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "starting the watch of the store failed, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        cache.healthy.send_replace(true);
    }
}

/// Resumes from the cache's revision. If the store has compacted the changes after it, everything is loaded again, and running
/// watches end with "too old".
async fn resume(cache: &Cache) -> Result<WatchStream, StoreError> {
    match follow(cache, cache.revision().into()).await {
        Err(StoreError::Compacted { .. }) => {
            let revision = load(cache).await?;
            follow(cache, revision).await
        }
        resumed => resumed,
    }
}

fn apply(cache: &Cache, batch: &Batch) {
    let revision = batch.revision.0;
    let mut changes: HashMap<GroupResource, Vec<KeyChange>> = HashMap::new();
    for event in batch.events.iter() {
        match keys::parse(event.key()) {
            Entry::Object { group, resource, key } => {
                let storage = GroupResource { group: group.into(), resource: resource.into() };
                if !cache.kinds.contains_key(&storage) {
                    continue;
                }
                let current = match &event.change {
                    StoreChange::Put(item) => match decode(cache, &storage, key, revision, &item.value) {
                        Some(object) => Some(object),
                        None => continue,
                    },
                    StoreChange::Delete { .. } => None,
                };
                let key = current.as_ref().map_or_else(|| ObjectKey::from_text(key), |object| object.key.clone());
                changes.entry(storage).or_default().push((key, current));
            }
            Entry::Claim(claim) => {
                let mut claims = cache.claims.write().unwrap_or_else(PoisonError::into_inner);
                match &event.change {
                    StoreChange::Put(item) => {
                        if let Some(held) = decode_claim(revision, &item.value) {
                            claims.insert(claim.to_owned(), held);
                        }
                    }
                    StoreChange::Delete { .. } => {
                        claims.remove(claim);
                    }
                }
            }
            Entry::Other => {}
        }
    }
    for (storage, changes) in changes {
        let Some((registered, kind)) = cache.kinds.get(&storage) else { continue };
        let applied = kind.apply(revision, changes);
        let mut relations = cache.relations.write().unwrap_or_else(PoisonError::into_inner);
        for change in &applied {
            relations.replace(&storage, change.previous.as_ref(), change.current.as_ref());
        }
        drop(relations);
        if registered.kind.takes.is_some() || registered.kind.gives.is_some() {
            let mut ledgers = cache.ledgers.write().unwrap_or_else(PoisonError::into_inner);
            for change in &applied {
                ledgers.replace(&storage, change.previous.as_ref(), change.current.as_ref());
            }
        }
        for change in applied {
            // Sending fails if there is no receiver, which is fine.
            let _ = cache.notices.send(Notice { registered: registered.clone(), change });
        }
    }
    cache.revision.send_if_modified(|current| {
        let advanced = revision > *current;
        *current = revision.max(*current);
        advanced
    });
}

fn decode(cache: &Cache, storage: &GroupResource, key: &str, revision: u64, value: &[u8]) -> Option<Arc<CachedObject>> {
    let (registered, _) = cache.kinds.get(storage)?;
    match CachedObject::from_stored(registered, ObjectKey::from_text(key), revision, value) {
        Ok(object) => Some(Arc::new(object)),
        Err(error) => {
            tracing::error!(%error, group = %storage.group, resource = %storage.resource, key, "decoding a stored object failed");
            None
        }
    }
}

fn decode_claim(revision: u64, value: &[u8]) -> Option<HeldClaim> {
    let holder =
        serde_json::from_slice(value).inspect_err(|error| tracing::error!(%error, "decoding a stored claim failed"));
    Some(HeldClaim { revision, holder: holder.ok()? })
}
