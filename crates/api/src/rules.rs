//! What a kind must say of itself beside its schema: one implementation of [`KindRules`] beside each kind's type.
//!
//! All of it is pure. The API server calls it for every write, so that no client can go around it; how a kind is added is in
//! `docs/howto/add-a-kind.md`.

use kube::{CustomResourceExt, Resource};
use serde::de::DeserializeOwned;

use crate::claims::Claim;
use crate::ledgers::{Room, Take};
use crate::names::NameRule;

/// Something that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field's path, for example `spec.diskRefs[0].name`.
    pub field: String,
    /// What was expected, what was found, what to do.
    pub message: String,
}

impl Problem {
    /// A problem of a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { field: field.into(), message: message.into() }
    }
}

/// A field of `spec` that keeps the value that it was created with, also if that was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Immutable {
    /// Its path below `spec`, for example `diskSize` or `osSettings.cloudInitUserData`; empty for all of `spec`.
    pub path: &'static str,
    /// What to do instead, for the refusal.
    pub message: &'static str,
}

/// A pure function of an object.
pub type Function<K, T> = Option<fn(&K) -> Vec<T>>;
/// A pure function of a new state of an object and the stored one.
pub type OfChange<K> = Option<fn(&K, &K) -> Vec<Problem>>;

/// What the server must know of a kind beside its definition. `None` costs nothing.
pub trait KindRules: Resource<DynamicType = ()> + CustomResourceExt + DeserializeOwned {
    /// What objects may be called.
    const NAMES: NameRule;
    /// Fields that cannot be changed. The rules for them become part of the schema.
    const IMMUTABLE: &'static [Immutable] = &[];
    /// What is wrong with an object and cannot be said in a schema. Not asked again while `spec` stays as it is, so that what an
    /// earlier version accepted keeps working.
    const PROBLEMS: Function<Self, Problem> = None;
    /// Changes that are refused in the state that the object is in: called with the new object and the stored one. An
    /// implementation destructures `spec`, so that a new field does not compile until somebody has decided.
    const CHANGES_REFUSED: OfChange<Self> = None;
    /// What the object holds and no other may.
    const CLAIMS: Function<Self, Claim> = None;
    /// What the object takes from ledgers, from its creation until it is gone. A function of `spec` and the metadata's names.
    const TAKES: Function<Self, Take> = None;
    /// The room that the object gives to a ledger.
    const GIVES: Function<Self, Room> = None;
}
