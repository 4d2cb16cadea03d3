//! Garbage collection by owner references.
//!
//! ```text
//!   every change ──► keys to look at ──► look(key): observe ► decide (pure) ► act through the API
//!
//!   object, not deleting:  all owners absent .............. delete it
//!                          some owners absent ............. remove the dangling references
//!                          an owner waits for it .......... delete it in the foreground (if it blocks the owner)
//!   object, deleting with "orphan": ..................... remove the reference from dependents, then the finalizer
//!   object, deleting with "foregroundDeletion": ......... delete dependents, then remove the finalizer
//! ```
//! An owner in another namespace does not count: the reference is dangling. Deletions have the uid as precondition, so that a
//! newer object of the same name is never deleted.

mod act;
mod decide;
mod observe;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;

use crate::background::measured::Measured;
use crate::http::server::ApiServer;
use crate::object::identity::Identity;
use crate::state::cache::Cache;
use crate::state::cache::relations::Place;

/// The delay after a failed action on an object; doubled up to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Starts it; it ends with the server.
pub(crate) fn start(server: &ApiServer) {
    let actor =
        act::Actor::new(server.service_as(Identity::controller("garbage-collector")), server.shared.registry.clone());
    let queue = Queue::new(Measured::of("garbage-collector"));
    let collector = Collector { cache: server.shared.cache.clone(), actor: Arc::new(actor), queue };
    let stopping = server.shared.stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = collector.run() => {}
            () = stopping.cancelled() => {}
        }
    });
}

struct Queue {
    order: VecDeque<Place>,
    waiting: HashSet<Place>,
    measured: Measured<Place>,
}

impl Queue {
    fn new(measured: Measured<Place>) -> Self {
        Self { order: VecDeque::new(), waiting: HashSet::new(), measured }
    }

    fn push(&mut self, place: Place) {
        if self.waiting.insert(place.clone()) {
            self.measured.wake(place.clone());
            self.order.push_back(place);
        }
    }

    fn pop(&mut self) -> Option<Place> {
        let place = self.order.pop_front()?;
        self.waiting.remove(&place);
        Some(place)
    }
}

struct Collector {
    cache: Arc<Cache>,
    actor: Arc<act::Actor>,
    queue: Queue,
}

impl Collector {
    async fn run(mut self) {
        let mut notices = self.cache.notices();
        self.look_at_everything();
        let (retry_sender, mut retries) = tokio::sync::mpsc::unbounded_channel::<Place>();
        let mut failures: HashMap<Place, u32> = HashMap::new();
        loop {
            // Process the queue before waiting for more.
            while let Some(place) = self.queue.pop() {
                loop {
                    match notices.try_recv() {
                        Ok(notice) => self.note(&notice),
                        Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_)) => self.look_at_everything(),
                        Err(_) => break,
                    }
                }
                match self.queue.measured.run(&place, &place.key, self.look(&place)).await {
                    Ok(()) => {
                        failures.remove(&place);
                    }
                    Err(problem) => {
                        let count = failures.entry(place.clone()).or_default();
                        let delay = RETRY.saturating_mul(1 << (*count).min(10)).min(MAX_RETRY);
                        *count += 1;
                        tracing::debug!(%problem, key = %place.key, "garbage collection of an object failed, trying again");
                        let sender = retry_sender.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(delay).await;
                            let _ = sender.send(place);
                        });
                    }
                }
            }
            tokio::select! {
                notice = notices.recv() => match notice {
                    Ok(notice) => self.note(&notice),
                    Err(RecvError::Lagged(_)) => self.look_at_everything(),
                    Err(RecvError::Closed) => return,
                },
                Some(place) = retries.recv() => self.queue.push(place),
            }
        }
    }

    /// Queues the objects that a change may affect.
    fn note(&mut self, notice: &crate::state::cache::Notice) {
        let change = &notice.change;
        let Some(subject) = change.subject() else { return };
        let place = Place { storage: notice.registered.storage.clone(), key: subject.key.clone() };
        match &change.current {
            Some(current) => {
                if !current.owners.is_empty() || (current.is_deleting && decide::has_collector_finalizer(current)) {
                    self.queue.push(place);
                }
                if current.is_deleting && !change.previous.as_ref().is_some_and(|it| it.is_deleting) {
                    self.push_dependents(&current.uid);
                }
            }
            None => self.push_dependents(&subject.uid),
        }
        // Owners in foreground deletion have to be checked when a dependent is deleted or drops its reference.
        let before = change.previous.iter().flat_map(|it| it.owners.iter());
        for owner in before {
            if let Some(place) = self.cache.relations(|it| it.find(&owner.uid).cloned()) {
                let waits = self.cache.kind(&place.storage).get(place.key.as_str()).is_some_and(|it| it.is_deleting);
                if waits {
                    self.queue.push(place);
                }
            }
        }
    }

    fn push_dependents(&mut self, uid: &str) {
        for place in self.cache.relations(|it| it.dependents(uid).cloned().collect::<Vec<_>>()) {
            self.queue.push(place);
        }
    }

    fn look_at_everything(&mut self) {
        let cache = self.cache.clone();
        for (registered, kind) in cache.kinds() {
            for object in
                kind.select(|it| !it.owners.is_empty() || (it.is_deleting && decide::has_collector_finalizer(it)))
            {
                self.queue.push(Place { storage: registered.storage.clone(), key: object.key.clone() });
            }
        }
    }

    /// Reconciles one object.
    async fn look(&self, place: &Place) -> Result<(), String> {
        let Some(observed) = observe::observe(&self.cache, place) else { return Ok(()) };
        for action in decide::decide(&observed) {
            self.actor.act(&action).await?;
        }
        Ok(())
    }
}
