//! Informers: one watch of a kind for all controllers of a process, kept as a store with indexes.
//!
//! ```text
//!   API ──watch──▶ store ──▶ indexes ──▶ listeners (wake the keys that a change concerns)
//!                    ▲          ▲
//!                    └── get ───┴── by index: what a reconciliation reads
//! ```
//! Guarantees: reads of one kind never go back in time; after [`Informer::settle`] a reader sees all writes that were made through
//! [`Informer::create_or_adopt`], [`Informer::replace`] and [`Informer::delete`]; a listener runs after store and indexes have the change.
//! Caveats: two kinds are not of one moment, and other processes write too. What must be unique is therefore claimed in the store, and what
//! ends something reads again or names the uid of the object it saw.

mod change;
mod index;
mod kind;
mod set;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use kube::api::{Api, PostParams};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};

pub use change::Change;
pub use index::Index;
pub use kind::Kind;
pub use set::Informers;

use crate::watching::Pauses;
use crate::{Error, Result, api_error, write};
use index::Keys;
use settle::Settle;

type Listener<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// All objects of a kind as of a moment ago. Cheap to clone.
pub struct Informer<K: Kind>(Arc<Shared<K>>);

impl<K: Kind> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<K: Kind> {
    store: reflector::Store<K>,
    followers: Mutex<Followers<K>>,
    settle: Settle,
}

struct Followers<K: Kind> {
    indexes: Vec<Arc<Keys<K>>>,
    listeners: Vec<Listener<K>>,
}

impl<K: Kind> Informer<K> {
    /// An informer, and the work that keeps it true for as long as it is polled.
    pub(crate) fn new(client: Client) -> (Self, impl Future<Output = ()> + Send) {
        let events = watcher(Api::<K>::all(client), watcher::Config::default()).backoff(Pauses::default());
        Self::following(events)
    }

    /// An informer of a stream of events.
    fn following(
        events: impl Stream<Item = std::result::Result<watcher::Event<K>, watcher::Error>> + Send,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (store, writer) = reflector::store();
        let followers = Mutex::new(Followers { indexes: vec![], listeners: vec![] });
        let informer = Self(Arc::new(Shared { store, followers, settle: Settle::default() }));
        (informer.clone(), informer.follow(writer, events))
    }

    async fn follow(
        self,
        mut writer: reflector::store::Writer<K>,
        events: impl Stream<Item = std::result::Result<watcher::Event<K>, watcher::Error>> + Send,
    ) {
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.apply(&mut writer, &event),
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), error = crate::chain(&error), "watch failed, will be tried again");
                }
            }
        }
    }

    /// Store first, then indexes, then listeners, then those who wait for a revision.
    fn apply(&self, writer: &mut reflector::store::Writer<K>, event: &watcher::Event<K>) {
        // Held over all of it: an index or a listener that is added meanwhile misses nothing.
        let followers = self.followers();
        let changes = match event {
            watcher::Event::Init => {
                self.0.settle.list_begins();
                writer.apply_watcher_event(event);
                return;
            }
            watcher::Event::InitApply(_) => {
                writer.apply_watcher_event(event);
                return;
            }
            watcher::Event::InitDone => {
                let old = by_reference(self.0.store.state());
                writer.apply_watcher_event(event);
                change::between(&old, &by_reference(self.0.store.state()))
            }
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
                let reference = ObjectRef::from_obj(object);
                let old = self.0.store.get(&reference);
                writer.apply_watcher_event(event);
                vec![Change { old, new: self.0.store.get(&reference) }]
            }
        };
        for change in &changes {
            followers.indexes.iter().for_each(|index| index.apply(change));
            followers.listeners.iter().for_each(|listener| listener(change));
        }
        match event {
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => self.0.settle.seen(object),
            _ => {
                changes.iter().filter_map(|change| change.new.as_deref()).for_each(|object| self.0.settle.seen(object));
                self.0.settle.list_ends();
            }
        }
    }

    /// Waits until the first list is in the store. Ends early only if the informer's work was dropped.
    pub async fn ready(&self) {
        if self.0.store.wait_until_ready().await.is_err() {
            tracing::debug!(kind = %K::kind(&()), "an informer ended before it was ready");
        }
    }

    /// The object of this name; `namespace` is `None` for kinds without namespaces.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        let reference = ObjectRef::new(name);
        self.0.store.get(&match namespace {
            Some(namespace) => reference.within(namespace),
            None => reference,
        })
    }

    /// All objects, in no order: for kinds of which a cloud has few.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.0.store.state()
    }

    /// An index by the keys that `keys` gives for an object. It is kept up to date for the life of the informer: make it once.
    pub fn index(&self, keys: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) -> Index<K> {
        let mut followers = self.followers();
        let index = Arc::new(Keys::new(keys));
        for object in self.0.store.state() {
            index.apply(&Change { old: None, new: Some(object) });
        }
        followers.indexes.push(Arc::clone(&index));
        Index::new(self.0.store.clone(), index)
    }

    /// An index by namespace.
    pub fn by_namespace(&self) -> Index<K> {
        self.index(|object| object.meta().namespace.clone().into_iter().collect())
    }

    /// An index by the uids of an object's owners.
    pub fn by_owner(&self) -> Index<K> {
        self.index(|object| object.owner_references().iter().map(|owner| owner.uid.clone()).collect())
    }

    /// Calls `listener` with every object that exists now, and then with every change.
    pub fn listen(&self, listener: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut followers = self.followers();
        for object in self.0.store.state() {
            listener(&Change { old: None, new: Some(object) });
        }
        followers.listeners.push(Box::new(listener));
    }

    /// Creates an object whose name follows from its owner, or adopts the one that exists; a reader sees it after
    /// [`Self::settle`].
    ///
    /// # Errors
    /// [`Error::Refused`] if it can never be created as it is, [`Error::Full`] if a ledger has no room for it.
    pub async fn create_or_adopt(&self, api: &Api<K>, object: &K) -> Result<()> {
        let written = write::create(api, object).await?;
        written.iter().for_each(|object| self.0.settle.expect(object));
        Ok(())
    }

    /// Deletes the very object that was observed; a reader sees that after [`Self::settle`].
    pub async fn delete(&self, api: &Api<K>, object: &K) -> Result<()> {
        let written = write::delete(api, object, None).await?;
        written.iter().for_each(|object| self.0.settle.expect(object));
        Ok(())
    }

    /// Deletes the very object that was observed if nothing has changed it since; a reader sees that after [`Self::settle`].
    ///
    /// # Errors
    /// [`Error::Changed`] if something has.
    pub async fn delete_unchanged(&self, api: &Api<K>, object: &K) -> Result<()> {
        let written = write::delete(api, object, object.meta().resource_version.clone()).await?;
        written.iter().for_each(|object| self.0.settle.expect(object));
        Ok(())
    }

    /// Writes the object, which holds only for the version that it has; a reader sees that after [`Self::settle`].
    ///
    /// # Errors
    /// [`Error::Changed`] if it has another version by now.
    pub async fn replace(&self, api: &Api<K>, object: &K) -> Result<()> {
        let name = object.name_any();
        match api.replace(&name, &PostParams::default(), object).await {
            Ok(written) => {
                self.0.settle.expect(&written);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Err(Error::Changed(format!("write {name}"))),
            Err(error) => Err(api_error(format!("write {name}"))(error)),
        }
    }

    /// Waits until the store has everything that was written through this informer so far.
    ///
    /// # Errors
    /// If the watch is too far behind: the reconciliation is tried again later.
    pub async fn settle(&self) -> Result<()> {
        self.0.settle.wait().await.map_err(|_| Error::Behind(K::kind(&()).into_owned()))
    }

    pub(crate) fn store(&self) -> reflector::Store<K> {
        self.0.store.clone()
    }

    fn followers(&self) -> MutexGuard<'_, Followers<K>> {
        self.0.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_reference<K: Kind>(objects: Vec<Arc<K>>) -> HashMap<ObjectRef<K>, Arc<K>>
where
    ObjectRef<K>: Hash + Eq,
{
    objects.into_iter().map(|object| (ObjectRef::from_obj(&*object), object)).collect()
}
