//! The changes of one object.

use std::collections::HashMap;
use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;

use super::kind::Kind;

/// An object before and after a change; `None` where it did not exist.
#[derive(Debug)]
pub struct Change<K> {
    /// The object before.
    pub old: Option<Arc<K>>,
    /// The object now.
    pub new: Option<Arc<K>>,
}

impl<K: Kind> Change<K> {
    /// Both of them, the old one first.
    pub fn both(&self) -> impl Iterator<Item = &K> {
        self.old.iter().chain(&self.new).map(|object| &**object)
    }

    /// Whether what `of` gives for the object before and after differs.
    pub fn differs<T: PartialEq>(&self, of: impl Fn(&K) -> T) -> bool {
        self.old.as_deref().map(&of) != self.new.as_deref().map(&of)
    }
}

/// The changes from one list to the next.
pub(super) fn between<K: Kind>(
    old: &HashMap<ObjectRef<K>, Arc<K>>,
    new: &HashMap<ObjectRef<K>, Arc<K>>,
) -> Vec<Change<K>> {
    let absent = old.iter().filter(|(reference, _)| !new.contains_key(*reference));
    let absent = absent.map(|(_, object)| Change { old: Some(object.clone()), new: None });
    let present = new.iter().filter_map(|(reference, object)| {
        let before = old.get(reference);
        let is_same = before.is_some_and(|before| {
            before.meta().resource_version.is_some()
                && before.meta().resource_version == object.meta().resource_version
                && before.meta().uid == object.meta().uid
        });
        (!is_same).then(|| Change { old: before.cloned(), new: Some(object.clone()) })
    });
    absent.chain(present).collect()
}
