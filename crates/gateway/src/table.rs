//! The routing table: services, their revisions, and the replicas of those with the requests in each.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evroc_metrics::Registry;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::{Present, ServiceMetrics, write_present};
use crate::time;

/// How long a replica that took no connection is passed over after its first failure; every further failure doubles it. Too low
/// hammers a host that restarts; too high keeps requests waiting after it is back.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// A namespaced name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// The target of a host name.
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
    /// Its uid: identifies it to the dialer.
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
    /// When the last one came or ended.
    pub last: Option<Timestamp>,
}

impl Requests {
    /// Whether there is none.
    pub fn is_idle(&self) -> bool {
        self.waiting + self.in_flight == 0
    }
}

/// A replica, the requests in it, and whether connecting to it works.
struct TrackedReplica {
    replica: Replica,
    in_flight: usize,
    /// Failures to connect since the last success.
    failures: u32,
    /// Until when it is passed over for the last failure.
    not_before: Option<Instant>,
}

/// A route, with the handles of the service that it belongs to.
#[derive(Clone)]
pub(crate) struct Routed {
    pub route: Route,
    pub service: Option<Arc<ServiceMetrics>>,
}

#[derive(Default)]
struct State {
    routes: HashMap<String, Routed>,
    replicas: HashMap<Key, TrackedReplica>,
    requests: HashMap<Key, Requests>,
}

/// The target of a request now.
pub enum Choice {
    /// To this replica.
    Now(Lease),
    /// All replicas that are ready took no connection lately: look again then.
    NotBefore(Instant),
    /// Nowhere: no replica is ready.
    Nowhere,
}

/// The table; shared by all connections.
#[derive(Default)]
pub struct Table {
    state: Mutex<State>,
    /// Whether all services have been read once: before, an unknown host is not known to be unknown.
    complete: AtomicBool,
    /// Rung when a route or a replica changed: those who wait look again.
    changed: Notify,
    /// Rung when the requests of a revision changed.
    pub(crate) load_changed: Notify,
    /// Rung when a replica may have been drained, or was removed.
    pub(crate) drain_changed: Notify,
}

impl Table {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the table as complete: all services are in it.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether all services are in the table.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Sets or removes the target of a host name.
    pub fn set_route(&self, host: &str, route: Option<Route>) {
        self.set(host, route.map(|route| Routed { route, service: None }));
    }

    /// Sets or removes the target of a host name, with what is measured of its service.
    pub(crate) fn set(&self, host: &str, route: Option<Routed>) {
        let mut state = self.state();
        match route {
            Some(route) => state.routes.insert(host.to_owned(), route),
            None => state.routes.remove(host),
        };
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns the target of a host name.
    pub fn route(&self, host: &str) -> Option<Route> {
        self.routed(host).map(|routed| routed.route)
    }

    /// Returns the target of a host name, with what is measured of its service.
    pub(crate) fn routed(&self, host: &str) -> Option<Routed> {
        self.state().routes.get(host).cloned()
    }

    /// Has the registry contain the replicas and requests of all services.
    pub(crate) fn measure(self: &Arc<Self>, registry: &Registry) {
        let table = Arc::downgrade(self);
        registry.at_scrape(move |scrape| match table.upgrade() {
            Some(table) => write_present(scrape, &table.present()),
            None => Ok(()),
        });
    }

    /// Returns the replicas and requests of the revision that each service's requests go to.
    fn present(&self) -> Vec<(Arc<ServiceMetrics>, Present)> {
        let state = self.state();
        let mut by_revision: HashMap<&Key, Present> = HashMap::new();
        for known in state.replicas.values() {
            let present = by_revision.entry(&known.replica.revision).or_default();
            match &known.replica {
                Replica { draining: true, .. } => present.draining += 1,
                Replica { ready: true, .. } => present.ready += 1,
                _ => present.starting += 1,
            }
        }
        for (revision, requests) in &state.requests {
            let present = by_revision.entry(revision).or_default();
            (present.waiting, present.in_flight) = (requests.waiting, requests.in_flight);
        }
        let of = |routed: &Routed| {
            let present = match &routed.route {
                Route::To(revision) => by_revision.get(revision).copied().unwrap_or_default(),
                Route::NotReady(_) => Present::default(),
            };
            Some((routed.service.clone()?, present))
        };
        state.routes.values().filter_map(of).collect()
    }

    /// Sets the state of a replica. One that has become ready is tried at once, also after failures.
    pub fn set_replica(&self, replica: Replica) {
        let mut state = self.state();
        let before = state.replicas.remove(&replica.key).filter(|known| known.replica.uid == replica.uid);
        let mut known = before.unwrap_or_else(|| TrackedReplica {
            replica: replica.clone(),
            in_flight: 0,
            failures: 0,
            not_before: None,
        });
        if replica.ready && !known.replica.ready {
            (known.failures, known.not_before) = (0, None);
        }
        known.replica = replica.clone();
        state.replicas.insert(replica.key, known);
        drop(state);
        self.changed.notify_waiters();
        self.drain_changed.notify_one();
    }

    /// Forgets a deleted replica, unless another of the same name has come.
    pub fn remove_replica(&self, key: &Key, uid: &str) {
        let mut state = self.state();
        if state.replicas.get(key).is_some_and(|known| known.replica.uid == uid) {
            state.replicas.remove(key);
            drop(state);
            self.drain_changed.notify_one();
        }
    }

    /// The uid of a replica.
    pub fn replica_uid(&self, key: &Key) -> Option<String> {
        self.state().replicas.get(key).map(|known| known.replica.uid.clone())
    }

    /// Replicas that are to stop and answer nothing any more.
    pub fn drained(&self) -> Vec<Replica> {
        let state = self.state();
        state.replicas.values().filter(|k| k.replica.draining && k.in_flight == 0).map(|k| k.replica.clone()).collect()
    }

    /// The uids of all replicas that are known.
    pub fn uids(&self) -> HashSet<String> {
        self.state().replicas.values().map(|known| known.replica.uid.clone()).collect()
    }

    /// The requests of every revision that has had one lately.
    pub fn requests(&self) -> HashMap<Key, Requests> {
        self.state().requests.clone()
    }

    /// Forgets the count of a revision that is idle and has had no request since `seen` was read.
    pub fn forget_requests(&self, revision: &Key, seen: Requests) {
        let mut state = self.state();
        if seen.is_idle() && state.requests.get(revision) == Some(&seen) {
            state.requests.remove(revision);
        }
    }

    /// The replica with the fewest requests, held until the lease is dropped.
    pub fn choose(self: &Arc<Self>, revision: &Key) -> Choice {
        let now = time::now();
        let mut state = self.state();
        let mut soonest: Option<Instant> = None;
        let mut best: Option<&mut TrackedReplica> = None;
        for known in state.replicas.values_mut() {
            if !known.replica.ready || known.replica.draining || known.replica.revision != *revision {
                continue;
            }
            if let Some(when) = known.not_before.filter(|when| *when > now) {
                soonest = Some(soonest.map_or(when, |soonest| soonest.min(when)));
            } else if best.as_ref().is_none_or(|best| known.in_flight < best.in_flight) {
                best = Some(known);
            }
        }
        match (best, soonest) {
            (Some(known), _) => {
                known.in_flight += 1;
                Choice::Now(Lease { table: self.clone(), replica: known.replica.clone(), failures: known.failures })
            }
            (None, Some(when)) => Choice::NotBefore(when),
            (None, None) => Choice::Nowhere,
        }
    }

    /// Counts a request of a revision until the ticket is dropped; it starts as a waiting one.
    pub fn ticket(self: &Arc<Self>, revision: &Key) -> Ticket {
        self.count(revision, |requests| requests.waiting += 1);
        Ticket { table: self.clone(), revision: revision.clone(), waiting: true }
    }

    /// The number of requests that wait for a replica of a revision.
    pub fn waiting(&self, revision: &Key) -> i32 {
        self.state().requests.get(revision).map_or(0, |requests| requests.waiting)
    }

    fn count(&self, revision: &Key, change: impl FnOnce(&mut Requests)) {
        let mut state = self.state();
        let requests = state.requests.entry(revision.clone()).or_default();
        change(requests);
        requests.last = Some(Timestamp::now());
        drop(state);
        self.load_changed.notify_one();
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
    /// The failures that were known when it was chosen: many requests that fail together are one failure.
    failures: u32,
}

impl Lease {
    fn known<R>(&self, change: impl FnOnce(&mut TrackedReplica) -> R) -> Option<R> {
        let mut state = self.table.state();
        state.replicas.get_mut(&self.replica.key).filter(|known| known.replica.uid == self.replica.uid).map(change)
    }

    /// The replica took no connection: it is passed over for a while. Its host may be restarting, so this heals by itself.
    /// Says how often it has failed now, if this was news.
    pub fn failed(&self) -> Option<u32> {
        self.known(|known| {
            (known.failures == self.failures).then(|| {
                let pause = FIRST_PAUSE.saturating_mul(1 << known.failures.min(10)).min(LONGEST_PAUSE);
                known.failures += 1;
                known.not_before = Some(time::now() + pause);
                known.failures
            })
        })
        .flatten()
    }

    /// The replica took a connection.
    pub fn works(&self) {
        self.known(|known| (known.failures, known.not_before) = (0, None));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let drained = self.known(|known| {
            known.in_flight = known.in_flight.saturating_sub(1);
            known.replica.draining && known.in_flight == 0
        });
        if drained == Some(true) {
            self.table.drain_changed.notify_one();
        }
    }
}

/// A request's place in its revision's count.
pub struct Ticket {
    table: Arc<Table>,
    /// The revision that it counts for.
    pub revision: Key,
    waiting: bool,
}

impl Ticket {
    /// The request is being answered now.
    pub fn start(&mut self) {
        self.turn(false);
    }

    /// The request waits again.
    pub fn wait(&mut self) {
        self.turn(true);
    }

    fn turn(&mut self, waiting: bool) {
        if std::mem::replace(&mut self.waiting, waiting) != waiting {
            let step = if waiting { 1 } else { -1 };
            self.table.count(&self.revision, |requests| {
                requests.waiting += step;
                requests.in_flight -= step;
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let waiting = self.waiting;
        self.table.count(&self.revision, |requests| {
            if waiting {
                requests.waiting -= 1;
            } else {
                requests.in_flight -= 1;
            }
        });
    }
}
