//! The registered kinds, compiled, and their lookup. Fixed once the server is built.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::json;
use thiserror::Error;

use crate::object::kind::ResourceKind;
use crate::object::schema::{Model, SchemaError};
use crate::object::table::{ColumnError, Columns};

/// A kind that cannot be served.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// Its schema does not compile.
    #[error("registering {kind}: its schema cannot be used")]
    Schema {
        /// `plural.group`.
        kind: String,
        /// Why.
        #[source]
        source: SchemaError,
    },
    /// Its columns cannot be used.
    #[error("registering {kind}: its printer columns cannot be used")]
    Columns {
        /// `plural.group`.
        kind: String,
        /// Why.
        #[source]
        source: ColumnError,
    },
    /// Two kinds with the same path.
    #[error("registering {0}: it is registered already")]
    Twice(String),
    /// The storing kind of a shared one is missing.
    #[error("registering {kind}: it shares the storage of {stored_by}, which is not registered")]
    NoStorage {
        /// `plural.group`.
        kind: String,
        /// `plural.group` of the other.
        stored_by: String,
    },
}

/// The group and resource under which objects are stored and cached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// Empty for the core group.
    pub group: String,
    /// The plural.
    pub resource: String,
}

/// A registered kind with everything that is derived from it.
#[derive(Debug)]
pub struct Registered {
    /// As it was registered.
    pub kind: ResourceKind,
    /// Its schema, compiled.
    pub model: Model,
    /// Its columns, parsed.
    pub columns: Columns,
    /// The prefix of its objects in the store.
    pub storage: GroupResource,
    /// `group/version`.
    pub api_version: String,
}

impl Registered {
    fn compile(kind: ResourceKind) -> Result<Self, RegisterError> {
        let name = kind.qualified_plural();
        let model =
            Model::compile(&kind.schema).map_err(|source| RegisterError::Schema { kind: name.clone(), source })?;
        let columns = if kind.columns.is_empty() { json!(null) } else { json!(kind.columns) };
        let columns = Columns::parse(&columns).map_err(|source| RegisterError::Columns { kind: name, source })?;
        let storage = match &kind.shared_storage {
            Some(shared) => GroupResource { group: shared.group.clone(), resource: shared.plural.clone() },
            None => GroupResource { group: kind.group.clone(), resource: kind.plural.clone() },
        };
        let api_version = kind.api_version();
        Ok(Registered { kind, model, columns, storage, api_version })
    }

    /// Whether this is the kind Namespace.
    pub fn is_namespace(&self) -> bool {
        self.kind.group.is_empty() && self.kind.plural == "namespaces"
    }
}

/// All kinds.
#[derive(Debug, Default)]
pub struct Registry {
    kinds: Vec<Arc<Registered>>,
    by_path: HashMap<(String, String, String), Arc<Registered>>,
    by_kind: HashMap<(String, String), Arc<Registered>>,
}

impl Registry {
    /// Compiles and indexes the kinds.
    pub fn new(kinds: Vec<ResourceKind>) -> Result<Self, RegisterError> {
        let mut registry = Registry::default();
        for kind in kinds {
            let registered = Arc::new(Registered::compile(kind)?);
            let kind = &registered.kind;
            let path = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
            if registry.by_path.insert(path, registered.clone()).is_some() {
                return Err(RegisterError::Twice(kind.qualified_plural()));
            }
            registry.by_kind.insert((kind.api_version(), kind.kind.clone()), registered.clone());
            registry.kinds.push(registered);
        }
        for registered in &registry.kinds {
            let GroupResource { group, resource } = &registered.storage;
            let stores = |it: &Arc<Registered>| it.kind.group == *group && it.kind.plural == *resource;
            if !registry.kinds.iter().any(stores) {
                return Err(RegisterError::NoStorage {
                    kind: registered.kind.qualified_plural(),
                    stored_by: format!("{resource}.{group}"),
                });
            }
        }
        Ok(registry)
    }

    /// Returns a registry of the kinds that `takes` accepts.
    pub fn only(&self, takes: impl Fn(&ResourceKind) -> bool) -> Self {
        let mut registry = Registry::default();
        for registered in self.kinds.iter().filter(|it| takes(&it.kind)) {
            let kind = &registered.kind;
            let path = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
            registry.by_path.insert(path, registered.clone());
            registry.by_kind.insert((kind.api_version(), kind.kind.clone()), registered.clone());
            registry.kinds.push(registered.clone());
        }
        registry
    }

    /// Returns all kinds in the order of registration.
    pub fn kinds(&self) -> &[Arc<Registered>] {
        &self.kinds
    }

    /// Returns the kind that a path names.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Registered>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// Returns the kind that an object or a reference names.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Registered>> {
        self.by_kind.get(&(api_version.to_owned(), kind.to_owned()))
    }

    /// Returns the kinds whose objects are stored under their own keys.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.kinds.iter().filter(|it| it.kind.answer.is_none() && it.kind.shared_storage.is_none())
    }

    /// Groups in the order of their first registration, each with its versions; the core group is `""`.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut order: Vec<&str> = Vec::new();
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for registered in &self.kinds {
            let group = registered.kind.group.as_str();
            if !order.contains(&group) {
                order.push(group);
            }
            let known = versions.entry(group).or_default();
            if !known.contains(&registered.kind.version.as_str()) {
                known.push(&registered.kind.version);
            }
        }
        order.into_iter().map(|group| (group, versions.remove(group).unwrap_or_default())).collect()
    }

    /// Kinds of one group and version, in the order of registration.
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Registered>> {
        self.kinds.iter().filter(move |it| it.kind.group == group && it.kind.version == version)
    }
}
