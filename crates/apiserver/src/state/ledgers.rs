//! Ledgers: quantities that objects take together, and that never exceed the given total.
//!
//! A kind says what its objects take (`host/host-1`: an amount of memory) and what they give. A write that takes more than the stored state
//! of its object compares the sum with the room. Its transaction then rewrites the key of each ledger that it takes from, on condition
//! that the key is what it was before the sum was read, or what the write before it makes it, and that the object that gives the room has not changed
//! either. Of two writes that saw the same sum only one is committed; the other is checked again. Deletes, and writes that take the same or less, need no ledger: they only
//! make room. Writes do not wait for each other's disk: [`super::lanes`] has those that are under way. The ledger of a namespace (`group/<namespace>`) has the room that the smallest of its quotas allows; without a quota it has
//! any amount, and costs nothing. A ledger that no object gives has a fixed room, which every take of it states; its key is removed with
//! the last object that takes from it. A quota applies to writes that begin after it was written: its status changes with every create, so that its
//! revision cannot be a condition. The sums are kept by the cache and are built from the objects, so that nothing has to be repaired after a crash.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde_json::Value;

use super::cache::{Cache, CacheError};
use super::lanes::{UnderWay, Until};
use super::quota::{self, Allowance};
use super::storage::claims::{self, Holder, Ledger};
use crate::object::kind::{Limit, Room, Take};

/// The conditions of a write's transaction.
#[derive(Default)]
pub(crate) struct Guard {
    /// The ledgers that it takes from.
    pub(crate) ledgers: Vec<Ledger>,
    /// The keys in the store of the objects that give the room, with their revisions.
    pub(crate) givers: BTreeMap<Bytes, u64>,
    /// The write in its lanes, if it takes from a ledger.
    pub(crate) under_way: Option<UnderWay>,
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
    /// There is not that much left of a ledger that the user of the object chose.
    Limited {
        /// The field that takes too much.
        field: String,
        /// The refusal.
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

/// An amount that an object takes in addition to what it took.
struct Wanted<'a> {
    ledger: &'a str,
    resource: &'a str,
    field: &'a str,
    amount: u128,
    had: u128,
    /// The smallest quota, for the ledger of a namespace.
    allowance: Option<Allowance>,
    /// The room of a ledger that no object gives.
    limit: Option<&'a Limit>,
}

/// Returns what has to be checked. A quota applies to writes that begin after it was written.
fn wanted<'a>(cache: &Cache, new: &'a [Take], old: &'a [Take]) -> Vec<Wanted<'a>> {
    let mut wanted: BTreeMap<(&str, &str), Wanted<'a>> = BTreeMap::new();
    for take in new {
        let (ledger, resource) = (take.ledger.as_str(), take.resource.as_str());
        let want = wanted.entry((ledger, resource)).or_insert_with(|| Wanted {
            ledger,
            resource,
            field: &take.field,
            amount: 0,
            had: 0,
            allowance: None,
            limit: take.limit.as_ref(),
        });
        want.amount += u128::from(take.amount);
        want.field = &take.field;
    }
    for take in old {
        if let Some(want) = wanted.get_mut(&(take.ledger.as_str(), take.resource.as_str())) {
            want.had += u128::from(take.amount);
        }
    }
    let limited = wanted.into_values().filter(|want| want.amount > want.had).filter_map(|want| {
        let Some(namespace) = want.ledger.strip_prefix(OF_NAMESPACE) else { return Some(want) };
        let allowances = quota::allowances(cache, namespace, want.resource);
        let allowance = Some(allowances.into_iter().min_by_key(|allowance| allowance.limit)?);
        Some(Wanted { allowance, ..want })
    });
    limited.collect()
}

/// The outcome of a check.
enum Checked {
    /// It fits, if the transaction finds this.
    Fits(Vec<Ledger>, BTreeMap<Bytes, u64>),
    /// It fits only without writes that are under way.
    Wait(Until),
}

/// Checks whether an object may take `new` where its stored state takes `old`, and enters the lanes of the ledgers. A dry run is only checked.
pub(crate) async fn check(
    cache: &Cache,
    new: &[Take],
    old: &[Take],
    holder: &Holder,
    is_dry_run: bool,
) -> Result<Guard, LedgerError> {
    let wanted = wanted(cache, new, old);
    if wanted.is_empty() {
        return Ok(Guard::default());
    }
    let lanes = cache.lanes();
    loop {
        let mut ended = lanes.ended();
        let turn = lanes.turn().await;
        match look(cache, &wanted)? {
            Checked::Fits(ledgers, givers) => {
                let under_way = (!is_dry_run).then(|| lanes.enter(turn, claims::mark(holder), taken(&wanted)));
                return Ok(Guard { ledgers, givers, under_way });
            }
            Checked::Wait(until) => {
                drop(turn);
                match until {
                    // The sender lives as long as the lanes.
                    Until::Ended => drop(ended.changed().await),
                    Until::Cached(revision) => cache.wait_for(revision).await.map_err(LedgerError::Cache)?,
                }
            }
        }
    }
}

/// Returns the amounts that a write takes from each ledger in addition.
fn taken(wanted: &[Wanted]) -> HashMap<String, Vec<(String, u128)>> {
    let mut taken: HashMap<String, Vec<(String, u128)>> = HashMap::new();
    for want in wanted {
        taken.entry(key_name(want.ledger)).or_default().push((want.resource.to_owned(), want.amount - want.had));
    }
    taken
}

fn look(cache: &Cache, wanted: &[Wanted]) -> Result<Checked, LedgerError> {
    // Read before the sums: they hold all that happened until then, and perhaps more, which is then counted twice.
    let reached = cache.revision();
    let (mut ledgers, mut givers) = (Vec::<Ledger>::new(), BTreeMap::new());
    for want in wanted {
        let name = key_name(want.ledger);
        let view = match cache.lanes().view(&name, want.resource, reached) {
            Ok(view) => view,
            Err(until) => return Ok(Checked::Wait(until)),
        };
        let before = match view.before {
            Some(before) => before,
            None => match cache.claim(&name).map(|held| held.revision) {
                // The sums are to hold all that the ledger knows.
                Some(revision) if revision > reached => return Ok(Checked::Wait(Until::Cached(revision))),
                written => written.into(),
            },
        };
        let balance = cache.ledgers(|ledgers| ledgers.balance(want.ledger, want.resource));
        let fixed = want.allowance.as_ref().map(|allowance| allowance.limit).or(want.limit.map(|limit| limit.amount));
        let room = fixed.map_or_else(|| balance.room(), u128::from);
        let others = balance.taken.saturating_sub(want.had);
        if others + want.amount > room {
            return Err(exceeded(want, room.saturating_sub(others), room));
        }
        if others + view.taken + want.amount > room {
            return Ok(Checked::Wait(view.until));
        }
        if !ledgers.iter().any(|known| known.name == name) {
            ledgers.push(Ledger { name, before });
        }
        givers.extend(balance.given.into_iter().map(|(key, (_, revision))| (key, revision)));
    }
    Ok(Checked::Fits(ledgers, givers))
}

fn exceeded(want: &Wanted, left: u128, room: u128) -> LedgerError {
    if let Some(limit) = want.limit {
        return LedgerError::Limited { field: want.field.to_owned(), message: limit.message.clone() };
    }
    let Wanted { ledger, resource, amount, allowance, .. } = want;
    let by = allowance.as_ref().map(|it| format!(" (ResourceQuota \"{}\")", it.quota)).unwrap_or_default();
    let message = format!("{ledger} has {left} of {room} {resource} left, {amount} wanted{by}");
    LedgerError::Exceeded { field: want.field.to_owned(), message }
}

/// The keys of ledgers with a fixed room from which nothing takes any more after a write, each with its revision. A create that takes
/// from one meanwhile rewrites the key, so that the write is tried again.
pub(crate) fn emptied(cache: &Cache, new: &[Take], old: &[Take]) -> Vec<(String, u64)> {
    let mut names = Vec::new();
    for take in old.iter().filter(|take| take.limit.is_some()) {
        if new.iter().any(|other| other.ledger == take.ledger) {
            continue;
        }
        let name = key_name(&take.ledger);
        // The key first: the sum then holds all that the key knows.
        let Some(held) = cache.claim(&name) else { continue };
        let balance = cache.ledgers(|ledgers| ledgers.balance(&take.ledger, &take.resource));
        if balance.taken <= u128::from(take.amount) {
            names.push((name, held.revision));
        }
    }
    names
}
