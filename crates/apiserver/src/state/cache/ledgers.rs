//! The sums that all objects take from each ledger, and the objects that give the room.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::object::CachedObject;
use crate::object::registry::GroupResource;
use crate::state::storage::keys;

/// A resource of a ledger.
type Account = (Box<str>, Box<str>);

/// One resource of one ledger, as of the cache's revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// The amounts that objects take.
    pub taken: u128,
    /// The amounts that objects give, by their key in the store, each with the revision that wrote it.
    pub given: BTreeMap<Bytes, (u64, u64)>,
}

impl Balance {
    /// The total amount.
    pub fn room(&self) -> u128 {
        self.given.values().map(|(amount, _)| u128::from(*amount)).sum()
    }
}

/// All ledgers. Objects of kinds that neither take nor give are never looked at.
#[derive(Debug, Default)]
pub struct Ledgers(HashMap<Account, Balance>);

impl Ledgers {
    /// Puts the new state of an object in place of the one before.
    pub(super) fn replace(
        &mut self,
        storage: &GroupResource,
        previous: Option<&Arc<CachedObject>>,
        current: Option<&Arc<CachedObject>>,
    ) {
        if let Some(object) = previous {
            for take in &object.takes {
                self.change(&take.ledger, &take.resource, |balance| {
                    balance.taken = balance.taken.saturating_sub(take.amount.into());
                });
            }
            for room in &object.gives {
                let key = keys::object(storage, &object.key);
                self.change(&room.ledger, &room.resource, |balance| {
                    balance.given.remove(&key);
                });
            }
        }
        if let Some(object) = current {
            for take in &object.takes {
                self.change(&take.ledger, &take.resource, |balance| balance.taken += u128::from(take.amount));
            }
            for room in &object.gives {
                let key = keys::object(storage, &object.key);
                self.change(&room.ledger, &room.resource, |balance| {
                    balance.given.insert(key, (room.amount, object.revision));
                });
            }
        }
    }

    fn change(&mut self, ledger: &str, resource: &str, change: impl FnOnce(&mut Balance)) {
        let account = (ledger.into(), resource.into());
        let balance = self.0.entry(account).or_default();
        change(balance);
        if *balance == Balance::default() {
            self.0.remove(&(ledger.into(), resource.into()));
        }
    }

    /// One resource of one ledger.
    pub fn balance(&self, ledger: &str, resource: &str) -> Balance {
        self.0.get(&(ledger.into(), resource.into())).cloned().unwrap_or_default()
    }
}
