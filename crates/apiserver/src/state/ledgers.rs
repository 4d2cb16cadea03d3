//! Ledgers: quantities that objects take together, and that never exceed the given total.
//!
//! A kind says what its objects take (`host/host-1`: an amount of memory) and what they give. A write that takes more than the stored state
//! of its object compares the sum with the room. Its transaction then rewrites the key of each ledger that it takes from, on condition
//! that the key is what it was before the sum was read, and that the object that gives the room has not changed either. Of two writes that saw the
//! same sum only one is committed; the other is checked again. Deletes, and writes that take the same or less, need no ledger: they only
//! make room. The ledger of a namespace (`group/<namespace>`) has the room that the smallest of its quotas allows; without a quota it has
//! any amount, and costs nothing. A quota applies to writes that begin after it was written: its status changes with every create, so that its
//! revision cannot be a condition. The sums are kept by the cache and are built from the objects, so that nothing has to be repaired after a crash.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::cache::{Cache, CacheError};
use super::quota;
use super::storage::claims::Ledger;
use crate::object::kind::{Room, Take};

/// The conditions of a write's transaction.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// The ledgers that it takes from.
    pub(crate) ledgers: Vec<Ledger>,
    /// The keys in the store of the objects that give the room, with their revisions.
    pub(crate) givers: BTreeMap<Bytes, u64>,
}

/// Why an object may not take what it wants.
#[derive(Debug)]
pub(crate) enum LedgerError {
    /// There is not that much left.
    Exceeded {
        /// The field that takes too much.
        field: String,
        /// The ledger, the rest, the wanted amount.
        message: String,
    },
    /// The cache does not follow the store.
    Cache(CacheError),
}

/// The prefix of the ledgers of namespaces.
const OF_NAMESPACE: &str = "group/";

/// The ledger of a namespace.
pub(crate) fn of_namespace(namespace: &str) -> String {
    format!("{OF_NAMESPACE}{namespace}")
}

/// The name of the key of the ledger that a quota limits: it is removed with the quota, and written again while another one exists.
pub(crate) fn limited_by(quota: &Value) -> Option<String> {
    let namespace = quota.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let is_limited = quota::TAKEN.iter().any(|name| quota::limit(quota, name).is_some());
    is_limited.then(|| key_name(&of_namespace(namespace)))
}

/// The name of a ledger's key among the claims.
fn key_name(ledger: &str) -> String {
    format!("ledger/{ledger}")
}

/// The names of the keys of the ledgers that an object gives room to: they are removed with it.
pub(crate) fn given_by(rooms: &[Room]) -> Vec<String> {
    let mut names: Vec<String> = rooms.iter().map(|room| key_name(&room.ledger)).collect();
    names.dedup();
    names
}

/// Whether an object may take `new` where its stored state takes `old`.
pub(crate) async fn check(cache: &Cache, new: &[Take], old: &[Take]) -> Result<Guard, LedgerError> {
    let mut wanted: BTreeMap<(&str, &str), (u128, u128, &str)> = BTreeMap::new();
    for take in new {
        let (amount, _, field) = wanted.entry((&take.ledger, &take.resource)).or_insert((0, 0, &take.field));
        *amount += u128::from(take.amount);
        *field = &take.field;
    }
    for take in old {
        if let Some((_, had, _)) = wanted.get_mut(&(take.ledger.as_str(), take.resource.as_str())) {
            *had += u128::from(take.amount);
        }
    }
    wanted.retain(|_, (amount, had, _)| amount > had);
    let mut guard = Guard::default();
    for ((ledger, resource), (amount, had, field)) in wanted {
        let namespace = ledger.strip_prefix(OF_NAMESPACE);
        let quotas = namespace.map(|namespace| quota::allowances(cache, namespace, resource));
        if quotas.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let name = key_name(ledger);
        if !guard.ledgers.iter().any(|(known, _)| *known == name) {
            let written = cache.claim(&name).map(|held| held.revision);
            // The sum is to hold all that the ledger knows.
            if let Some(revision) = written {
                cache.wait_for(revision).await.map_err(LedgerError::Cache)?;
            }
            guard.ledgers.push((name, written));
        }
        let balance = cache.ledgers(|ledgers| ledgers.balance(ledger, resource));
        let smallest = quotas.iter().flatten().min_by_key(|allowance| allowance.limit);
        let room = smallest.map_or_else(|| balance.room(), |allowance| u128::from(allowance.limit));
        let others = balance.taken.saturating_sub(had);
        if others + amount > room {
            let left = room.saturating_sub(others);
            let by = smallest.map(|allowance| format!(" (ResourceQuota \"{}\")", allowance.quota)).unwrap_or_default();
            let message = format!("{ledger} has {left} of {room} {resource} left, {amount} wanted{by}");
            return Err(LedgerError::Exceeded { field: field.to_owned(), message });
        }
        guard.givers.extend(balance.given.into_iter().map(|(key, (_, revision))| (key, revision)));
    }
    Ok(guard)
}
