//! Owner relations between objects, by uid.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::object::CachedObject;
use crate::object::registry::GroupResource;
use crate::state::storage::keys::ObjectKey;

/// The location of an object: kind and key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The kind's storage.
    pub storage: GroupResource,
    /// The object's key.
    pub key: ObjectKey,
}

/// An index of owners and dependents.
#[derive(Debug, Default)]
pub struct Relations {
    by_uid: HashMap<Box<str>, Place>,
    dependents: HashMap<Box<str>, BTreeSet<Place>>,
}

impl Relations {
    /// Returns the location of the object with this uid.
    pub fn find(&self, uid: &str) -> Option<&Place> {
        self.by_uid.get(uid)
    }

    /// Returns the objects that name this uid as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Place> {
        self.dependents.get(uid).into_iter().flatten()
    }

    pub(super) fn replace(
        &mut self,
        storage: &GroupResource,
        previous: Option<&Arc<CachedObject>>,
        current: Option<&Arc<CachedObject>>,
    ) {
        if let Some(previous) = previous {
            let place = Place { storage: storage.clone(), key: previous.key.clone() };
            if self.by_uid.get(&previous.uid) == Some(&place) {
                self.by_uid.remove(&previous.uid);
            }
            for owner in &previous.owners {
                if let Some(set) = self.dependents.get_mut(owner.uid.as_str()) {
                    set.remove(&place);
                    if set.is_empty() {
                        self.dependents.remove(owner.uid.as_str());
                    }
                }
            }
        }
        if let Some(current) = current {
            let place = Place { storage: storage.clone(), key: current.key.clone() };
            for owner in &current.owners {
                self.dependents.entry(owner.uid.as_str().into()).or_default().insert(place.clone());
            }
            self.by_uid.insert(current.uid.clone(), place);
        }
    }
}
