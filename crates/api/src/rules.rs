//! The rules of a kind beside its schema: one implementation of [`KindRules`] beside each kind's type.
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
    /// The message: what was expected, what was found, what to do.
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
    /// The alternative to suggest in the refusal.
    pub message: &'static str,
}

/// A pure function of an object.
pub type Function<K, T> = Option<fn(&K) -> Vec<T>>;
/// A pure function of a new state of an object and the stored one.
pub type OfChange<K> = Option<fn(&K, &K) -> Vec<Problem>>;

/// A pure function of a new state of an object and the stored one, if any.
pub type OfWrite<K, T> = Option<fn(&K, Option<&K>) -> Vec<T>>;

/// The rules of a kind beside its definition, for the server. `None` costs nothing.
pub trait KindRules: Resource<DynamicType = ()> + CustomResourceExt + DeserializeOwned {
    /// The rule for the names of objects.
    const NAMES: NameRule;
    /// Fields that cannot be changed. The rules for them become part of the schema.
    const IMMUTABLE: &'static [Immutable] = &[];
    /// Returns the problems of an object that a schema cannot express. Not evaluated again while `spec` stays unchanged, so that
    /// objects that an earlier version accepted keep working.
    const PROBLEMS: Function<Self, Problem> = None;
    /// Changes that are refused in the state that the object is in: called with the new object and the stored one. An
    /// implementation destructures `spec`, so that a new field does not compile until its mutability has been decided.
    const CHANGES_REFUSED: OfChange<Self> = None;
    /// Warnings about what is accepted and probably not meant: called with the new object and the stored one, if any. `kubectl` and
    /// `evroc` print them.
    const WARNINGS: OfWrite<Self, String> = None;
    /// Returns the claims that the object holds and no other may hold.
    const CLAIMS: Function<Self, Claim> = None;
    /// Returns the amounts that the object takes from ledgers, from creation to deletion. A function of `spec` and the metadata's
    /// names.
    const TAKES: Function<Self, Take> = None;
    /// The credentials that the object revokes, as the API server names them in the audit log.
    const REVOKES: Function<Self, String> = None;
    /// The room that the object gives to a ledger.
    const GIVES: Function<Self, Room> = None;
}
