//! Commits one write of one object. The same transaction takes and releases claims, and checks that the namespace still accepts
//! objects.

use std::collections::BTreeMap;

use bytes::Bytes;
use evroc_store::{Condition, Operation, Store, StoreError, Txn, TxnOutcome};

use crate::object::kind::ClaimKey;
use crate::state::cache::{Cache, CacheError};
use crate::state::lanes::UnderWay;
use crate::state::storage::claims::{Before, Holder, Ledger};
use crate::state::storage::keys;

/// The write to commit.
pub struct Write<'a> {
    /// The object's key in the store.
    pub key: Bytes,
    /// The revision that is replaced; `None` if the object must not exist.
    pub expected: Option<u64>,
    /// The stored form; `None` removes the object.
    pub value: Option<Vec<u8>>,
    /// The namespace's key, and the revision at which it accepted objects.
    pub namespace: Option<(Bytes, u64)>,
    /// The ledgers that count the object, each as it was before the count.
    pub ledgers: &'a [Ledger],
    /// Other keys that must be unchanged, with their revisions.
    pub unchanged: &'a BTreeMap<Bytes, u64>,
    /// Ledgers that are no longer needed.
    pub closed_ledgers: &'a [String],
    /// The claims of the new object.
    pub claims: &'a [ClaimKey],
    /// The claims of the old object.
    pub released: &'a [ClaimKey],
    /// The object as a holder of claims.
    pub holder: &'a Holder,
    /// Only check whether a claim would be refused.
    pub dry_run: bool,
}

/// The outcome of a write.
#[derive(Debug)]
pub enum Outcome {
    /// Written at this revision.
    Written(u64),
    /// The object is not at the expected revision, or exists when it should not.
    ObjectChanged,
    /// The namespace, a ledger or another key has changed.
    NamespaceChanged,
    /// Another object holds a claim.
    Held {
        /// The claim.
        claim: ClaimKey,
        /// Its holder.
        by: Holder,
    },
}

/// The reason why a write failed, or why its outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store failed.
    #[error("writing to the store")]
    Store(#[from] StoreError),
    /// The cache does not reach the revision.
    #[error("waiting for the cache")]
    Cache(#[from] CacheError),
}

/// Commits a write. If a claim turns out to be taken, the cache catches up and the claim is checked again.
///
/// # Errors
/// If the store fails.
pub(crate) async fn commit(
    store: &dyn Store,
    cache: &Cache,
    write: &Write<'_>,
    mut under_way: Option<UnderWay>,
) -> Result<Outcome, WriteError> {
    loop {
        let mut txn = Txn::new().when(match write.expected {
            Some(revision) => Condition::Unchanged(write.key.clone(), revision.into()),
            None => Condition::Absent(write.key.clone()),
        });
        txn = txn.then(match &write.value {
            Some(value) => Operation::put(write.key.clone(), value.clone()),
            None => Operation::delete(write.key.clone()),
        });
        let claims_begin = 1 + usize::from(write.namespace.is_some()) + write.ledgers.len() + write.unchanged.len();
        if let Some((key, revision)) = &write.namespace {
            txn = txn.when(Condition::Unchanged(key.clone(), (*revision).into()));
        }
        // Serialising four strings cannot fail.
        let holder = || serde_json::to_vec(write.holder).unwrap_or_default();
        for (key, revision) in write.unchanged {
            txn = txn.when(Condition::Unchanged(key.clone(), (*revision).into()));
        }
        for ledger in write.ledgers {
            let key = keys::claim(&ledger.name);
            txn = txn.when(match &ledger.before {
                Before::Revision(revision) => Condition::Unchanged(key.clone(), (*revision).into()),
                Before::Written(mark) => Condition::Holds(key.clone(), mark.clone()),
                Before::Absent => Condition::Absent(key.clone()),
            });
            let value = under_way.as_ref().map_or_else(|| holder().into(), |it| it.mark().clone());
            txn = txn.then(Operation::put(key, value));
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
        let outcome = match &mut under_way {
            Some(under_way) => under_way.send(store.txn(txn)).await,
            None => store.txn(txn).await,
        };
        match outcome? {
            TxnOutcome::Committed { revision } => {
                if let Some(under_way) = under_way {
                    under_way.committed(revision.0);
                }
                return Ok(Outcome::Written(revision.0));
            }
            TxnOutcome::ConditionFailed { index, revision, .. } => {
                // Others need not wait with this one until the cache has what it has missed.
                let was_under_way = under_way.take().is_some();
                cache.wait_for(revision.0).await?;
                match index {
                    0 => return Ok(Outcome::ObjectChanged),
                    // A write in a lane is sent once.
                    _ if index < claims_begin || was_under_way => return Ok(Outcome::NamespaceChanged),
                    _ => {}
                }
            }
        }
    }
}
