//! The book: the promised amounts of each host, kept up to date by watches, so that no decision adds up all objects of the cloud.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evroc_api::infra::{Host, Machine, Replica, Volume};
use evroc_controller::{Change, Informer, Informers, Kind, Result};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::jiff::Timestamp;

use crate::facts::{HostFacts, Promised, Takes, is_ready};

/// How long a host is avoided for an object that the store refused there. Too low asks again before the watch has brought what
/// takes the room; too high keeps an object waiting that fits again.
const AVOIDED: Duration = Duration::from_secs(10);

/// The beginning of a refusal by the quota of a resource group, whatever the host.
const OF_GROUP: &str = "group/";

/// The hosts and their promised amounts. Cheap to clone.
#[derive(Clone)]
pub struct Book {
    hosts: Informer<Host>,
    machines: Informer<Machine>,
    replicas: Informer<Replica>,
    volumes: Informer<Volume>,
    pages: Arc<Mutex<Pages>>,
}

#[derive(Default)]
struct Pages {
    promised: HashMap<String, Promised>,
    /// By the uid of the object to be placed.
    refused: HashMap<String, Vec<Refused>>,
}

struct Refused {
    host: String,
    why: String,
    since: Timestamp,
}

impl Book {
    /// A book that these informers fill.
    pub fn new(informers: &Informers) -> Self {
        let book = Self {
            hosts: informers.of(),
            machines: informers.of(),
            replicas: informers.of(),
            volumes: informers.of(),
            pages: Arc::default(),
        };
        book.enter(&book.machines);
        book.enter(&book.replicas);
        book.enter(&book.volumes);
        book
    }

    fn enter<K: Kind + Takes>(&self, informer: &Informer<K>) {
        let pages = self.pages.clone();
        informer.listen(move |change: &Change<K>| {
            let mut pages = lock(&pages);
            pages.turn(change.old.as_deref().map(Takes::takes), change.new.as_deref().map(Takes::takes));
            if let Some(gone) = change.old.as_deref().filter(|_| change.new.is_none()) {
                pages.made_room(gone.takes().0, gone.was_used());
            }
        });
    }

    /// Waits until the book knows all that exists.
    pub async fn ready(&self) {
        self.hosts.ready().await;
        self.machines.ready().await;
        self.replicas.ready().await;
        self.volumes.ready().await;
    }

    /// Waits until the book knows what this process has placed so far.
    ///
    /// # Errors
    /// If a watch is too far behind.
    pub async fn settle(&self) -> Result<()> {
        self.machines.settle().await?;
        self.replicas.settle().await?;
        self.volumes.settle().await
    }

    /// The hosts; with `uid`, where the store refused that object a moment ago.
    pub fn facts(&self, uid: &str, now: Timestamp) -> Vec<HostFacts> {
        let hosts = self.hosts.all();
        let pages = lock(&self.pages);
        let refused = pages.refused.get(uid).map_or(&[][..], Vec::as_slice);
        let facts = hosts.iter().map(|host| {
            let mut facts = HostFacts::new(host, Promised::default());
            facts.promised = pages.promised.get(&facts.name).copied().unwrap_or_default();
            let refusal = refused.iter().find(|it| it.host == facts.name && it.holds(now));
            facts.refused = refusal.map(|it| it.why.clone());
            facts
        });
        facts.collect()
    }

    /// The zones of all hosts, in order. The first is that of what names none.
    pub fn zones(&self) -> Vec<String> {
        let mut zones: Vec<String> = self.hosts.all().iter().filter_map(|host| host.spec.zone.clone()).collect();
        zones.sort_unstable();
        zones.dedup();
        zones
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Option<Arc<Host>> {
        self.hosts.get(None, name)
    }

    /// Enters that the store has no room on a host for the object with this uid; the next choices avoid the host. Returns after
    /// how long it may be chosen again.
    pub fn refused(&self, uid: &str, host: &str, why: &str, now: Timestamp) -> Duration {
        let mut pages = lock(&self.pages);
        pages.refused.retain(|_, refused| {
            refused.retain(|it| it.holds(now));
            !refused.is_empty()
        });
        let refused = pages.refused.entry(uid.to_owned()).or_default();
        refused.push(Refused { host: host.to_owned(), why: why.to_owned(), since: now });
        AVOIDED
    }

    /// Forgets all refusals: what was refused may fit now, and the store decides.
    pub fn forget_refusals(&self) {
        lock(&self.pages).refused.clear();
    }
}

impl Pages {
    fn turn(&mut self, old: Option<(&str, Promised)>, new: Option<(&str, Promised)>) {
        if let Some((host, less)) = old
            && let Some(promised) = self.promised.get_mut(host)
        {
            promised.memory_bytes = promised.memory_bytes.saturating_sub(less.memory_bytes);
            promised.disk_bytes = promised.disk_bytes.saturating_sub(less.disk_bytes);
            if *promised == Promised::default() {
                self.promised.remove(host);
            }
        }
        if let Some((host, more)) = new {
            let promised = self.promised.entry(host.to_owned()).or_default();
            promised.memory_bytes = promised.memory_bytes.saturating_add(more.memory_bytes);
            promised.disk_bytes = promised.disk_bytes.saturating_add(more.disk_bytes);
        }
    }

    /// Something on a host is gone: what the store refused there before may fit now. The quota of a resource group has more room as well, unless
    /// it is a volume that was never used: it may have been removed because of that quota.
    fn made_room(&mut self, host: &str, was_used: bool) {
        self.refused.retain(|_, refused| {
            refused.retain(|it| match it.why.starts_with(OF_GROUP) {
                true => !was_used,
                false => it.host != host,
            });
            !refused.is_empty()
        });
    }
}

impl Refused {
    fn holds(&self, now: Timestamp) -> bool {
        now.duration_since(self.since).unsigned_abs() < AVOIDED
    }
}

/// Whether a change of a host may make room: not its reports that all is as it was.
pub fn may_make_room(change: &Change<Host>) -> bool {
    change.new.is_some()
        && change.differs(|host| {
            let room = host.status.as_ref().and_then(|status| status.allocatable.clone());
            (is_ready(host), host.spec.clone(), room)
        })
}

/// Whether a change of a quota may make room in its resource group: not its reports of what is used.
pub fn may_allow_more(change: &Change<ResourceQuota>) -> bool {
    change.old.is_some() && change.differs(|quota| quota.spec.clone())
}

fn lock(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_until_something_on_the_host_is_gone() {
        let mut pages = Pages::default();
        let refused = |host: &str| Refused { host: host.into(), why: "full".into(), since: Timestamp::UNIX_EPOCH };
        pages.refused.insert("u".into(), vec![refused("a"), refused("b")]);
        pages.made_room("a", false);
        assert_eq!(pages.refused["u"].iter().map(|it| it.host.as_str()).collect::<Vec<_>>(), ["b"]);
        pages.made_room("b", true);
        assert!(pages.refused.is_empty());
        // A quota has not more room because a volume was removed that it was exceeded with.
        let of_group = Refused { why: "group/demo has 0 of 5 requests.memory left".into(), ..refused("a") };
        pages.refused.insert("u".into(), vec![of_group]);
        pages.made_room("a", false);
        assert_eq!(pages.refused["u"].len(), 1);
        pages.made_room("b", true);
        assert!(pages.refused.is_empty(), "whatever host it was on");
    }

    #[test]
    fn promises_are_entered_and_struck_out() {
        let mut pages = Pages::default();
        let memory = |memory_bytes| Promised { memory_bytes, disk_bytes: 0 };
        pages.turn(None, Some(("a", memory(5))));
        pages.turn(None, Some(("a", Promised { memory_bytes: 0, disk_bytes: 7 })));
        assert_eq!(pages.promised["a"], Promised { memory_bytes: 5, disk_bytes: 7 });
        pages.turn(Some(("a", memory(5))), Some(("b", memory(5))));
        assert_eq!((pages.promised["a"].memory_bytes, pages.promised["b"].memory_bytes), (0, 5));
        pages.turn(Some(("b", memory(5))), None);
        assert!(!pages.promised.contains_key("b"), "a host of which nothing is promised has no page");
    }
}
