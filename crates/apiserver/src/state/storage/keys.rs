//! Keys: `/o/<group or core>/<plural>/<namespace>/<name>` (without the namespace for cluster-scoped kinds) for objects,
//! `/c/<claim>` for claims. The part after the plural is the [`ObjectKey`], whose byte order is the order of lists.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::object::registry::GroupResource;

const OBJECTS: &str = "/o/";
const CLAIMS: &str = "/c/";
const CORE: &str = "core";

/// `namespace/name`, or `name` alone for cluster-scoped kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// Returns the key of an object; the namespace is empty for cluster-scoped kinds.
    pub fn new(namespace: &str, name: &str) -> Self {
        if namespace.is_empty() { ObjectKey(name.into()) } else { ObjectKey(format!("{namespace}/{name}").into()) }
    }

    /// Returns the key from the text in the store's key.
    pub fn from_text(text: &str) -> Self {
        ObjectKey(text.into())
    }

    /// `namespace/name` or `name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }
}

impl Borrow<str> for ObjectKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The meaning of a key of the store.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// An object.
    Object {
        /// Empty for the core group.
        group: &'a str,
        /// The plural.
        resource: &'a str,
        /// The object's key.
        key: &'a str,
    },
    /// A claim, by its key.
    Claim(&'a str),
    /// Unknown; ignored.
    Other,
}

/// The store's key of an object.
pub fn object(storage: &GroupResource, key: &ObjectKey) -> Bytes {
    Bytes::from(format!("{}{key}", prefix(storage)))
}

/// Returns the common prefix of the keys of a kind.
pub fn prefix(storage: &GroupResource) -> String {
    let group = if storage.group.is_empty() { CORE } else { &storage.group };
    format!("{OBJECTS}{group}/{}/", storage.resource)
}

/// The store's key of a claim.
pub fn claim(key: &str) -> Bytes {
    Bytes::from(format!("{CLAIMS}{key}"))
}

/// Parses a key of the store.
pub fn parse(key: &[u8]) -> Entry<'_> {
    let Ok(text) = std::str::from_utf8(key) else { return Entry::Other };
    if let Some(claim) = text.strip_prefix(CLAIMS) {
        return Entry::Claim(claim);
    }
    let Some(rest) = text.strip_prefix(OBJECTS) else { return Entry::Other };
    let mut parts = rest.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(resource), Some(key)) => {
            Entry::Object { group: if group == CORE { "" } else { group }, resource, key }
        }
        _ => Entry::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let disks = GroupResource { group: "compute.example".into(), resource: "disks".into() };
        let key = object(&disks, &ObjectKey::new("demo", "a"));
        assert_eq!(parse(&key), Entry::Object { group: "compute.example", resource: "disks", key: "demo/a" });
        let namespaces = GroupResource { group: String::new(), resource: "namespaces".into() };
        let key = object(&namespaces, &ObjectKey::new("", "demo"));
        assert_eq!(parse(&key), Entry::Object { group: "", resource: "namespaces", key: "demo" });
        assert_eq!(parse(&claim("disk/demo/a")), Entry::Claim("disk/demo/a"));
        assert_eq!(parse(b"/elsewhere"), Entry::Other);
    }
}
