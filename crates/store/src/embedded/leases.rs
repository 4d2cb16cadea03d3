//! Leases in memory, with their deadlines and keys.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use crate::contract::{Lease, LeaseId};

#[derive(Debug)]
struct State {
    ttl: Duration,
    deadline: Duration,
    keys: BTreeSet<Bytes>,
}

/// All leases of a store. Times are from its clock.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: HashMap<LeaseId, State>,
    of_key: HashMap<Bytes, LeaseId>,
}

impl Leases {
    /// Returns an unused id.
    pub fn free_id(&self) -> LeaseId {
        use std::hash::{BuildHasher, RandomState};
        loop {
            // Each RandomState is seeded differently. SQLite's integers are signed: 63 bits.
            let number = RandomState::new().hash_one(self.leases.len()) >> 1;
            let id = LeaseId(number);
            if number != 0 && !self.leases.contains_key(&id) {
                return id;
            }
        }
    }

    pub fn grant(&mut self, lease: Lease, now: Duration) {
        let state = State { ttl: lease.ttl, deadline: now.saturating_add(lease.ttl), keys: BTreeSet::new() };
        self.leases.insert(lease.id, state);
    }

    pub fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Returns the lease as it was granted.
    pub fn get(&self, id: LeaseId) -> Option<Lease> {
        Some(Lease { id, ttl: self.leases.get(&id)?.ttl })
    }

    /// Renews a lease; `None` if it does not exist or has expired.
    pub fn keep_alive(&mut self, id: LeaseId, now: Duration) -> Option<Lease> {
        let state = self.leases.get_mut(&id)?;
        if state.deadline <= now {
            return None;
        }
        state.deadline = now.saturating_add(state.ttl);
        Some(Lease { id, ttl: state.ttl })
    }

    /// Attaches a key to a lease, or to none.
    pub fn attach(&mut self, key: &Bytes, lease: Option<LeaseId>) {
        let before = match lease {
            Some(id) => self.of_key.insert(key.clone(), id),
            None => self.of_key.remove(key),
        };
        if before == lease {
            return;
        }
        if let Some(state) = before.and_then(|id| self.leases.get_mut(&id)) {
            state.keys.remove(key);
        }
        if let Some(state) = lease.and_then(|id| self.leases.get_mut(&id)) {
            state.keys.insert(key.clone());
        }
    }

    /// Returns the keys attached to a lease.
    pub fn keys(&self, id: LeaseId) -> Option<Vec<Bytes>> {
        Some(self.leases.get(&id)?.keys.iter().cloned().collect())
    }

    /// Removes a lease; its keys must have been detached or deleted.
    pub fn remove(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Returns an expired lease, if any.
    pub fn expired(&self, now: Duration) -> Option<LeaseId> {
        self.leases
            .iter()
            .filter(|(_, state)| state.deadline <= now)
            .min_by_key(|(id, state)| (state.deadline, **id))
            .map(|(id, _)| *id)
    }

    /// Returns the deadline of the next lease that ends.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.leases.values().map(|state| state.deadline).min()
    }
}
