//! Indexes: which objects have a key.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kube::runtime::reflector::{ObjectRef, Store};

use super::change::Change;
use super::kind::Kind;

/// Finds the objects of a kind by a key.
pub struct Index<K: Kind> {
    store: Store<K>,
    keys: Arc<Keys<K>>,
}

impl<K: Kind> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), keys: Arc::clone(&self.keys) }
    }
}

impl<K: Kind> Index<K> {
    pub(super) fn new(store: Store<K>, keys: Arc<Keys<K>>) -> Self {
        Self { store, keys }
    }

    /// The objects with this key, by namespace and name.
    pub fn get(&self, key: &str) -> Vec<Arc<K>> {
        self.references(key).iter().filter_map(|reference| self.store.get(reference)).collect()
    }

    /// References to the objects with this key.
    pub fn references(&self, key: &str) -> Vec<ObjectRef<K>> {
        let found = self.keys.found.read().unwrap_or_else(PoisonError::into_inner);
        let names = found.get(key).into_iter().flatten();
        names
            .map(|(namespace, name)| match namespace {
                Some(namespace) => ObjectRef::new(name).within(namespace),
                None => ObjectRef::new(name),
            })
            .collect()
    }
}

/// Namespace and name.
type Name = (Option<String>, String);

/// Computes the keys of an object.
type KeysOf<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// The names of the objects with each key.
pub(super) struct Keys<K> {
    of: KeysOf<K>,
    found: RwLock<HashMap<String, BTreeSet<Name>>>,
}

impl<K: Kind> Keys<K> {
    pub(super) fn new(of: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) -> Self {
        Self { of: Box::new(of), found: RwLock::default() }
    }

    pub(super) fn apply(&self, change: &Change<K>) {
        let keys = |object: &Option<Arc<K>>| object.as_deref().map(&self.of).unwrap_or_default();
        let (old, new) = (keys(&change.old), keys(&change.new));
        if old == new {
            return;
        }
        let Some(object) = change.both().next() else { return };
        let name: Name = (object.meta().namespace.clone(), object.meta().name.clone().unwrap_or_default());
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        for key in old.iter().filter(|key| !new.contains(key)) {
            if let Some(names) = found.get_mut(key) {
                names.remove(&name);
                if names.is_empty() {
                    found.remove(key);
                }
            }
        }
        for key in new {
            found.entry(key).or_default().insert(name.clone());
        }
    }
}
