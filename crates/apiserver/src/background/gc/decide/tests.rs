use std::sync::Arc;

use super::*;
use crate::object::registry::GroupResource;
use crate::state::cache::object::{CachedObject, Owner};
use crate::state::storage::keys::ObjectKey;

fn place(name: &str) -> Place {
    let storage = GroupResource { group: "test.example".into(), resource: "disks".into() };
    Place { storage, key: ObjectKey::new("demo", name) }
}

fn owner(uid: &str, blocks: bool) -> Owner {
    Owner {
        api_version: "test.example/v1".into(),
        kind: "Disk".into(),
        name: uid.into(),
        uid: uid.into(),
        block_owner_deletion: blocks,
    }
}

fn object(name: &str, owners: &[Owner], finalizers: &[&str], is_deleting: bool) -> Arc<CachedObject> {
    Arc::new(CachedObject {
        key: ObjectKey::new("demo", name),
        revision: 1,
        wire: Default::default(),
        labels: Box::default(),
        uid: name.into(),
        owners: owners.into(),
        finalizers: finalizers.iter().map(|it| Box::from(*it)).collect(),
        is_deleting,
        takes: [].into(),
        gives: [].into(),
        fields: Default::default(),
    })
}

fn observed(object: Arc<CachedObject>, states: &[OwnerState], dependents: &[Arc<CachedObject>]) -> Observed {
    Observed {
        place: place("it"),
        owners: object.owners.iter().cloned().zip(states.iter().copied()).collect(),
        dependents: dependents.iter().map(|it| (place(it.key.name()), it.clone())).collect(),
        object,
    }
}

#[test]
fn objects_live_as_long_as_one_owner_does() {
    use OwnerState::{Absent, Exists, WaitsForDependents};
    let two = [owner("a", false), owner("b", true)];
    let delete = |is_foreground| vec![Action::Delete { place: place("it"), uid: "it".into(), is_foreground }];
    let without =
        |uid: &str| vec![Action::RemoveOwners { place: place("it"), uid: "it".into(), owners: vec![uid.into()] }];
    type Row<'a> = (&'a [OwnerState], &'a [Arc<CachedObject>], Vec<Action>);
    let children = [object("child", &[owner("it", true)], &[], false)];
    let table: [Row<'_>; 7] = [
        (&[Exists, Exists], &[], vec![]),
        (&[Exists, Absent], &[], without("b")),
        (&[Exists, WaitsForDependents], &[], without("b")),
        (&[Absent, Absent], &[], delete(false)),
        (&[Absent, Absent], &children, delete(false)),
        (&[Absent, WaitsForDependents], &[], delete(false)),
        (&[Absent, WaitsForDependents], &children, delete(true)),
    ];
    for (states, dependents, expected) in table {
        assert_eq!(decide(&observed(object("it", &two, &[], false), states, dependents)), expected, "{states:?}");
    }
}

#[test]
fn owners_in_the_foreground_wait_for_those_that_block() {
    let it = object("it", &[], &[FOREGROUND], true);
    let blocking = object("a", &[owner("it", true)], &[], false);
    let other = object("b", &[owner("it", false)], &[], false);
    let release = vec![Action::RemoveFinalizer { place: place("it"), uid: "it".into(), finalizer: FOREGROUND }];
    assert_eq!(decide(&observed(it.clone(), &[], &[blocking, other.clone()])), vec![]);
    assert_eq!(decide(&observed(it.clone(), &[], &[other])), release);
    assert_eq!(decide(&observed(it, &[], &[])), release);
}

#[test]
fn orphans_lose_their_owner_before_it_goes() {
    let it = object("it", &[], &[ORPHAN], true);
    let child = object("a", &[owner("it", true)], &[], false);
    let actions = decide(&observed(it, &[], &[child]));
    assert_eq!(
        actions,
        vec![
            Action::RemoveOwners { place: place("a"), uid: "a".into(), owners: vec!["it".into()] },
            Action::RemoveFinalizer { place: place("it"), uid: "it".into(), finalizer: ORPHAN },
        ]
    );
}
