//! Copies a whole store into an empty one of any backend, and compares the two afterwards.
//!
//! The newest state is copied, history is not. Keys, values and leases are the same afterwards, but revisions are new. So the
//! target should begin at the source's newest revision or later: then no revision that a client has seen gets another meaning.

use std::collections::HashMap;

use bytes::Bytes;

use crate::contract::{KeyRange, KeyValue, LeaseId, Operation, RangeRequest, Revision, Store, Txn};
use crate::error::StoreError;

/// Keys that are read at once. They are held in memory, and values have up to 8 MiB.
const PAGE: usize = 100;

/// The reason why a copy is not complete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The source failed.
    #[error("reading the store that is copied")]
    Source(#[source] StoreError),
    /// The target failed.
    #[error("writing the copy")]
    Target(#[source] StoreError),
    /// A value that the target cannot hold.
    #[error(
        "the value of key \"{}\" has {size} bytes, the store that it is copied to accepts {limit}: make the object \
         smaller or remove it first",
        key.escape_ascii()
    )]
    TooLarge {
        /// Its key.
        key: Bytes,
        /// Its size in bytes.
        size: usize,
        /// The target's limit.
        limit: usize,
    },
    /// The comparison found a difference.
    #[error("the copy differs from the original at key \"{}\": {detail}", key.escape_ascii())]
    Different {
        /// The first key that differs.
        key: Bytes,
        /// The difference.
        detail: String,
    },
}

/// A summary of a copy and its comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The source's revision that was copied.
    pub revision: Revision,
    /// The number of keys.
    pub keys: u64,
    /// Bytes of all values.
    pub bytes: u64,
}

/// Fills `target`, which must be empty, with the newest state of `source`, and compares both.
///
/// # Errors
/// See [`CopyError`]; the target is then incomplete and unusable.
pub async fn copy(source: &dyn Store, target: &dyn Store) -> Result<Summary, CopyError> {
    let revision = source.revision().await.map_err(CopyError::Source)?;
    let mut pages = Pages::new(source, revision, CopyError::Source);
    let mut batch = Batch::new(target);
    let mut leases = HashMap::new();
    while let Some(item) = pages.next().await? {
        let lease = match item.lease {
            None => None,
            Some(id) => Some(lease_of(source, target, &mut leases, id).await?),
        };
        batch.add(item, lease).await?;
    }
    batch.write().await?;
    compare(source, revision, target).await
}

/// Compares `source` at `revision` with the newest state of `target`: keys, values and durations of leases.
///
/// # Errors
/// [`CopyError::Different`] for the first key that differs.
pub async fn compare(source: &dyn Store, revision: Revision, target: &dyn Store) -> Result<Summary, CopyError> {
    let at = target.revision().await.map_err(CopyError::Target)?;
    let mut originals = Pages::new(source, revision, CopyError::Source);
    let mut copies = Pages::new(target, at, CopyError::Target);
    let mut summary = Summary { revision, keys: 0, bytes: 0 };
    let mut compared = HashMap::new();
    loop {
        let (original, copied) = (originals.next().await?, copies.next().await?);
        let (original, copied) = match (original, copied) {
            (None, None) => return Ok(summary),
            (Some(original), Some(copied)) => (original, copied),
            (Some(only), None) => return Err(different(only.key, "the copy does not have it")),
            (None, Some(only)) => return Err(different(only.key, "the original does not have it")),
        };
        if original.key < copied.key {
            return Err(different(original.key, "the copy does not have it"));
        }
        if copied.key < original.key {
            return Err(different(copied.key, "the original does not have it"));
        }
        if original.value != copied.value {
            return Err(different(original.key, "the values are not the same"));
        }
        match (original.lease, copied.lease) {
            (None, None) => {}
            (Some(one), Some(other)) if compared.get(&one) == Some(&other) => {}
            (Some(one), Some(other)) if !compared.contains_key(&one) => {
                let granted = source.lease(one).await.map_err(CopyError::Source)?;
                let copy = target.lease(other).await.map_err(CopyError::Target)?;
                if granted.ttl != copy.ttl {
                    return Err(different(original.key, "its leases last differently"));
                }
                compared.insert(one, other);
            }
            _ => return Err(different(original.key, "it belongs to another lease")),
        }
        summary.keys += 1;
        summary.bytes += original.value.len() as u64;
    }
}

fn different(key: Bytes, detail: &str) -> CopyError {
    CopyError::Different { key, detail: detail.to_owned() }
}

/// Returns the copy's lease for a lease of the original.
async fn lease_of(
    source: &dyn Store,
    target: &dyn Store,
    known: &mut HashMap<LeaseId, LeaseId>,
    id: LeaseId,
) -> Result<LeaseId, CopyError> {
    if let Some(copy) = known.get(&id) {
        return Ok(*copy);
    }
    let granted = source.lease(id).await.map_err(CopyError::Source)?;
    let copy = target.lease_grant(granted.ttl).await.map_err(CopyError::Target)?;
    known.insert(id, copy.id);
    Ok(copy.id)
}

/// Returns all keys of a store at one revision, in order.
struct Pages<'a> {
    store: &'a dyn Store,
    at: Revision,
    failed: fn(StoreError) -> CopyError,
    rest: Option<KeyRange>,
    page: std::vec::IntoIter<KeyValue>,
}

impl<'a> Pages<'a> {
    fn new(store: &'a dyn Store, at: Revision, failed: fn(StoreError) -> CopyError) -> Self {
        Pages { store, at, failed, rest: Some(KeyRange::all()), page: Vec::new().into_iter() }
    }

    async fn next(&mut self) -> Result<Option<KeyValue>, CopyError> {
        loop {
            if let Some(item) = self.page.next() {
                return Ok(Some(item));
            }
            let Some(range) = self.rest.take() else { return Ok(None) };
            let request = RangeRequest::new(range.clone()).limit(PAGE).at(self.at);
            let page = self.store.range(request).await.map_err(self.failed)?;
            if page.more {
                self.rest = page.items.last().map(|last| range.after(&last.key));
            }
            self.page = page.items.into_iter();
        }
    }
}

/// Operations that fit into one transaction of the target.
struct Batch<'a> {
    target: &'a dyn Store,
    txn: Txn,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn new(target: &'a dyn Store) -> Self {
        Batch { target, txn: Txn::new(), bytes: 0 }
    }

    async fn add(&mut self, item: KeyValue, lease: Option<LeaseId>) -> Result<(), CopyError> {
        let limits = self.target.limits();
        if item.value.len() > limits.value_bytes {
            return Err(CopyError::TooLarge { key: item.key, size: item.value.len(), limit: limits.value_bytes });
        }
        let size = item.key.len() + item.value.len();
        if self.txn.operations.len() >= limits.operations || self.bytes + size > limits.txn_bytes {
            self.write().await?;
        }
        self.bytes += size;
        self.txn.operations.push(Operation::Put { key: item.key, value: item.value, lease });
        Ok(())
    }

    async fn write(&mut self) -> Result<(), CopyError> {
        self.bytes = 0;
        let txn = std::mem::take(&mut self.txn);
        if !txn.operations.is_empty() {
            self.target.txn(txn).await.map_err(CopyError::Target)?;
        }
        Ok(())
    }
}
