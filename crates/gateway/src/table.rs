//! Who answers for which host: services, their revisions, and the replicas of those with the requests in each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A namespaced name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// What a host name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// All requests go to this revision.
    To(Key),
    /// The service has no revision that was ready; why, for people.
    NotReady(String),
}

/// A replica that a gateway knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its uid: names it to whoever connects.
    pub uid: String,
    /// Its object.
    pub key: Key,
    /// Its revision.
    pub revision: Key,
    /// The port that it listens on.
    pub port: u16,
    /// Whether it accepts connections.
    pub ready: bool,
    /// Whether it is to stop: no new requests.
    pub draining: bool,
}

/// The requests of one revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Waiting for a replica.
    pub waiting: i32,
    /// Being answered.
    pub in_flight: i32,
}

#[derive(Default)]
struct State {
    routes: HashMap<String, Route>,
    replicas: HashMap<Key, (Replica, usize)>,
    requests: HashMap<Key, Requests>,
}

/// The table; shared by all connections.
#[derive(Default)]
pub struct Table {
    state: Mutex<State>,
    /// Rung when a route or a replica changed: those who wait look again.
    changed: Notify,
    /// Rung when the requests of a revision changed.
    pub(crate) load_changed: Notify,
    /// Rung when a replica may have been drained.
    pub(crate) drain_changed: Notify,
}

impl Table {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or removes where a host name leads.
    pub fn set_route(&self, host: &str, route: Option<Route>) {
        let mut state = self.state();
        match route {
            Some(route) => state.routes.insert(host.to_owned(), route),
            None => state.routes.remove(host),
        };
        drop(state);
        self.changed.notify_waiters();
    }

    /// Where a host name leads.
    pub fn route(&self, host: &str) -> Option<Route> {
        self.state().routes.get(host).cloned()
    }

    /// Sets what is known of a replica.
    pub fn set_replica(&self, replica: Replica) {
        let mut state = self.state();
        let in_flight = state.replicas.get(&replica.key).filter(|(old, _)| old.uid == replica.uid).map_or(0, |(_, n)| *n);
        state.replicas.insert(replica.key.clone(), (replica, in_flight));
        drop(state);
        self.changed.notify_waiters();
        self.drain_changed.notify_one();
    }

    /// Forgets a replica that is gone.
    pub fn remove_replica(&self, key: &Key) {
        self.state().replicas.remove(key);
    }

    /// Replicas that are to stop and answer nothing any more.
    pub fn drained(&self) -> Vec<Key> {
        let state = self.state();
        state.replicas.values().filter(|(replica, in_flight)| replica.draining && *in_flight == 0).map(|(r, _)| r.key.clone()).collect()
    }

    /// The uids of all replicas that are known.
    pub fn uids(&self) -> Vec<String> {
        self.state().replicas.values().map(|(replica, _)| replica.uid.clone()).collect()
    }

    /// The requests of every revision that has had one.
    pub fn requests(&self) -> Vec<(Key, Requests)> {
        self.state().requests.iter().map(|(key, requests)| (key.clone(), *requests)).collect()
    }

    /// The replica with the fewest requests, held until the lease is dropped.
    pub fn lease(self: &Arc<Self>, revision: &Key) -> Option<Lease> {
        let mut state = self.state();
        let free = state.replicas.values_mut().filter(|(r, _)| r.ready && !r.draining && r.revision == *revision);
        let (replica, in_flight) = free.min_by_key(|(_, in_flight)| *in_flight)?;
        *in_flight += 1;
        let replica = replica.clone();
        drop(state);
        Some(Lease { table: self.clone(), replica })
    }

    /// Counts a request of a revision until the ticket is dropped; it starts as a waiting one.
    pub fn ticket(self: &Arc<Self>, revision: &Key) -> Ticket {
        self.state().requests.entry(revision.clone()).or_default().waiting += 1;
        self.load_changed.notify_one();
        Ticket { table: self.clone(), revision: revision.clone(), waiting: true }
    }

    /// A future that ends at the next change; made before looking, so that no change is missed.
    pub fn change(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

/// A request's hold on a replica.
pub struct Lease {
    table: Arc<Table>,
    /// The replica.
    pub replica: Replica,
}

impl Lease {
    /// The replica did not take connections: nobody else is sent there until its host says that it is ready again.
    pub fn unusable(self) {
        if let Some((replica, _)) = self.table.state().replicas.get_mut(&self.replica.key)
            && replica.uid == self.replica.uid
        {
            replica.ready = false;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((replica, in_flight)) = self.table.state().replicas.get_mut(&self.replica.key)
            && replica.uid == self.replica.uid
        {
            *in_flight = in_flight.saturating_sub(1);
        }
        self.table.drain_changed.notify_one();
    }
}

/// A request's place in its revision's count.
pub struct Ticket {
    table: Arc<Table>,
    revision: Key,
    waiting: bool,
}

impl Ticket {
    /// The request is being answered now.
    pub fn start(&mut self) {
        if std::mem::replace(&mut self.waiting, false) {
            let mut state = self.table.state();
            let requests = state.requests.entry(self.revision.clone()).or_default();
            requests.waiting -= 1;
            requests.in_flight += 1;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.table.state();
        let requests = state.requests.entry(self.revision.clone()).or_default();
        if self.waiting {
            requests.waiting -= 1;
        } else {
            requests.in_flight -= 1;
        }
        drop(state);
        self.table.load_changed.notify_one();
    }
}
