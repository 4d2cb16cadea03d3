//! Reads everything that a decision about one object needs from the cache.

use std::sync::Arc;

use crate::object::meta_validate::finalizers::FOREGROUND;
use crate::state::cache::Cache;
use crate::state::cache::object::{CachedObject, Owner};
use crate::state::cache::relations::Place;

/// The state of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It exists.
    Exists,
    /// It exists and waits until this object is deleted.
    WaitsForDependents,
    /// There is no object of that uid, name, kind and namespace.
    Absent,
}

/// One object and its relations.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) place: Place,
    pub(super) object: Arc<CachedObject>,
    pub(super) owners: Vec<(Owner, OwnerState)>,
    pub(super) dependents: Vec<(Place, Arc<CachedObject>)>,
}

/// Reads the object and its relations; `None` if it does not exist.
pub(super) fn observe(cache: &Cache, place: &Place) -> Option<Observed> {
    let object = cache.kind(&place.storage).get(place.key.as_str())?;
    let owners = object.owners.iter().map(|owner| (owner.clone(), owner_state(cache, place, owner))).collect();
    let places: Vec<Place> = cache.relations(|it| it.dependents(&object.uid).cloned().collect());
    let dependents = places
        .into_iter()
        // An object does not wait for itself, and references from other namespaces do not count.
        .filter(|it| it != place)
        .filter(|it| object.key.namespace().is_empty() || it.key.namespace() == object.key.namespace())
        .filter_map(|it| {
            let dependent = cache.kind(&it.storage).get(it.key.as_str())?;
            Some((it, dependent))
        })
        .collect();
    Some(Observed { place: place.clone(), object, owners, dependents })
}

fn owner_state(cache: &Cache, place: &Place, owner: &Owner) -> OwnerState {
    let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
    if !cache.kinds().any(|(registered, _)| registered.kind.group == group && registered.kind.kind == owner.kind) {
        // Objects of kinds that are not served may exist, so nothing is deleted because of them.
        return OwnerState::Exists;
    }
    let Some(found) = cache.relations(|it| it.find(&owner.uid).cloned()) else { return OwnerState::Absent };
    let is_reachable = found.key.namespace().is_empty() || found.key.namespace() == place.key.namespace();
    if !is_reachable || found.key.name() != owner.name {
        return OwnerState::Absent;
    }
    if group != found.storage.group {
        return OwnerState::Absent;
    }
    match cache.kind(&found.storage).get(found.key.as_str()) {
        None => OwnerState::Absent,
        Some(owner) if owner.is_deleting && owner.finalizers.iter().any(|it| &**it == FOREGROUND) => {
            OwnerState::WaitsForDependents
        }
        Some(_) => OwnerState::Exists,
    }
}
