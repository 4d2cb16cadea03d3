//! Decides what to do about one object. Pure.

use crate::object::meta_validate::finalizers::{FOREGROUND, ORPHAN};
use crate::state::cache::object::CachedObject;
use crate::state::cache::relations::Place;

use super::observe::{Observed, OwnerState};

/// One request to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Deletes an object; in the foreground if it has dependents of its own that matter.
    Delete { place: Place, uid: String, is_foreground: bool },
    /// Removes the references to these uids.
    RemoveOwners { place: Place, uid: String, owners: Vec<String> },
    /// Removes a finalizer.
    RemoveFinalizer { place: Place, uid: String, finalizer: &'static str },
}

/// Whether the collector has work to do before the object can be removed.
pub(super) fn has_collector_finalizer(object: &CachedObject) -> bool {
    object.finalizers.iter().any(|it| matches!(&**it, FOREGROUND | ORPHAN))
}

/// Returns the actions, in order.
pub(super) fn decide(observed: &Observed) -> Vec<Action> {
    let object = &observed.object;
    let uid = object.uid.to_string();
    let place = observed.place.clone();
    let has = |finalizer: &str| object.finalizers.iter().any(|it| &**it == finalizer);
    if object.is_deleting {
        if has(ORPHAN) {
            return orphan(observed, place, uid);
        }
        if has(FOREGROUND) {
            return wait_for_dependents(observed, place, uid);
        }
        return Vec::new();
    }
    if observed.owners.is_empty() {
        return Vec::new();
    }
    let with = |state: OwnerState| observed.owners.iter().filter(move |(_, it)| *it == state).map(|(owner, _)| owner);
    let is_held = with(OwnerState::Exists).next().is_some();
    let needless: Vec<String> = with(OwnerState::Absent)
        .chain(with(OwnerState::WaitsForDependents).filter(|_| is_held))
        .map(|owner| owner.uid.clone())
        .collect();
    if is_held {
        if needless.is_empty() {
            return Vec::new();
        }
        return vec![Action::RemoveOwners { place, uid, owners: needless }];
    }
    let is_waited_for = with(OwnerState::WaitsForDependents).next().is_some();
    // In a cycle some dependent already waits: another foreground deletion would wait for ever.
    let closes_cycle = observed.dependents.iter().any(|(_, it)| it.is_deleting && has_collector_finalizer(it));
    let is_foreground = is_waited_for && !observed.dependents.is_empty() && !closes_cycle;
    vec![Action::Delete { place, uid, is_foreground }]
}

fn orphan(observed: &Observed, place: Place, uid: String) -> Vec<Action> {
    let mut actions: Vec<Action> = observed
        .dependents
        .iter()
        .map(|(dependent, object)| Action::RemoveOwners {
            place: dependent.clone(),
            uid: object.uid.to_string(),
            owners: vec![uid.clone()],
        })
        .collect();
    actions.push(Action::RemoveFinalizer { place, uid, finalizer: ORPHAN });
    actions
}

fn wait_for_dependents(observed: &Observed, place: Place, uid: String) -> Vec<Action> {
    let blocks = |object: &CachedObject| object.owners.iter().any(|it| it.uid == uid && it.block_owner_deletion);
    // Dependents are handled on their own: each is queued when its owner begins to wait.
    if observed.dependents.iter().any(|(_, dependent)| blocks(dependent)) {
        return Vec::new();
    }
    vec![Action::RemoveFinalizer { place, uid, finalizer: FOREGROUND }]
}

#[cfg(test)]
mod tests;
