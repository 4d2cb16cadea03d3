//! One write of one object: with it, in the same transaction, the claims that it takes and releases, and the proof that
//! its namespace still accepts objects.

use std::collections::BTreeMap;

use bytes::Bytes;
use evroc_store::{Condition, Operation, Store, StoreError, Txn, TxnOutcome};

use crate::object::kind::ClaimKey;
use crate::state::cache::{Cache, CacheError};
use crate::state::storage::claims::{Holder, Ledger};
use crate::state::storage::keys;

/// What shall be written.
pub struct Write<'a> {
    /// The object's key in the store.
    pub key: Bytes,
    /// The revision that is replaced; `None` if there must be no object yet.
    pub expected: Option<u64>,
    /// The stored form; `None` removes the object.
    pub value: Option<Vec<u8>>,
    /// The namespace's key and the revision in which it was found to accept objects.
    pub namespace: Option<(Bytes, u64)>,
    /// The ledger that the object is counted in, with the revision in which it was when the count was taken.
    pub ledger: Option<Ledger>,
    /// Ledgers that nobody needs any more.
    pub closed_ledgers: &'a [String],
    /// What the object holds from now on.
    pub claims: &'a [ClaimKey],
    /// What it held before.
    pub released: &'a [ClaimKey],
    /// Who it is.
    pub holder: &'a Holder,
    /// Only find out whether it would be refused for a claim.
    pub dry_run: bool,
}

/// What became of it.
#[derive(Debug)]
pub enum Outcome {
    /// Done at that revision.
    Written(u64),
    /// The object is not at the expected revision, or exists, or does not.
    ObjectChanged,
    /// The namespace or the ledger has changed.
    NamespaceChanged,
    /// Somebody else holds a claim.
    Held {
        /// Which claim.
        claim: ClaimKey,
        /// By whom.
        by: Holder,
    },
}

/// Why it is not known what became of it, or nothing did.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store failed.
    #[error("writing to the store")]
    Store(#[from] StoreError),
    /// The cache does not follow.
    #[error("waiting for the cache")]
    Cache(#[from] CacheError),
}

/// Writes. A claim whose holder the cache did not know yet is looked at again.
///
/// # Errors
/// If the store fails.
pub async fn commit(store: &dyn Store, cache: &Cache, write: &Write<'_>) -> Result<Outcome, WriteError> {
    loop {
        let mut txn = Txn::new().when(match write.expected {
            Some(revision) => Condition::Unchanged(write.key.clone(), revision.into()),
            None => Condition::Absent(write.key.clone()),
        });
        txn = txn.then(match &write.value {
            Some(value) => Operation::put(write.key.clone(), value.clone()),
            None => Operation::delete(write.key.clone()),
        });
        let claims_begin = 1 + usize::from(write.namespace.is_some()) + usize::from(write.ledger.is_some());
        if let Some((key, revision)) = &write.namespace {
            txn = txn.when(Condition::Unchanged(key.clone(), (*revision).into()));
        }
        // Serialising four strings cannot fail.
        let holder = || serde_json::to_vec(write.holder).unwrap_or_default();
        if let Some((name, revision)) = &write.ledger {
            let key = keys::claim(name);
            txn = txn.when(match revision {
                Some(revision) => Condition::Unchanged(key.clone(), (*revision).into()),
                None => Condition::Absent(key.clone()),
            });
            txn = txn.then(Operation::put(key, holder()));
        }
        for name in write.closed_ledgers.iter().filter(|name| cache.claim(name).is_some()) {
            txn = txn.then(Operation::delete(keys::claim(name)));
        }
        let wanted: BTreeMap<&str, &ClaimKey> = write.claims.iter().map(|claim| (claim.key.as_str(), claim)).collect();
        for (name, claim) in &wanted {
            let key = keys::claim(name);
            match cache.claim(name) {
                None => {
                    txn = txn.when(Condition::Absent(key.clone())).then(Operation::put(key, holder()));
                }
                Some(held) if held.holder.uid == write.holder.uid => {
                    txn = txn.when(Condition::Unchanged(key, held.revision.into()));
                }
                Some(held) => return Ok(Outcome::Held { claim: (*claim).clone(), by: held.holder }),
            }
        }
        let released = write.released.iter().map(|claim| claim.key.as_str()).filter(|key| !wanted.contains_key(key));
        for name in released.collect::<std::collections::BTreeSet<_>>() {
            if let Some(held) = cache.claim(name).filter(|held| held.holder.uid == write.holder.uid) {
                let key = keys::claim(name);
                txn = txn.when(Condition::Unchanged(key.clone(), held.revision.into())).then(Operation::delete(key));
            }
        }
        if write.dry_run {
            return Ok(Outcome::Written(write.expected.unwrap_or_default()));
        }
        match store.txn(txn).await? {
            TxnOutcome::Committed { revision } => return Ok(Outcome::Written(revision.0)),
            TxnOutcome::ConditionFailed { index, revision, .. } => {
                cache.wait_for(revision.0).await?;
                match index {
                    0 => return Ok(Outcome::ObjectChanged),
                    _ if index < claims_begin => return Ok(Outcome::NamespaceChanged),
                    _ => {}
                }
            }
        }
    }
}
