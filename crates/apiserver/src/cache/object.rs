//! One object as the cache holds it: the bytes that every reader gets, and the few things that are looked at without
//! parsing them.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::registry::Registered;
use crate::storage::encoding;
use crate::storage::keys::ObjectKey;

/// An owner reference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// For example `compute.example/v1`.
    #[serde(default)]
    pub api_version: String,
    /// The owner's kind.
    #[serde(default)]
    pub kind: String,
    /// The owner's name.
    #[serde(default)]
    pub name: String,
    /// The owner's uid.
    #[serde(default)]
    pub uid: String,
    /// Whether a foreground deletion of the owner waits for this object.
    #[serde(default)]
    pub block_owner_deletion: bool,
}

/// An object at one revision.
#[derive(Debug)]
pub struct CachedObject {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The revision that wrote it.
    pub revision: u64,
    /// The JSON that clients get.
    pub wire: Bytes,
    /// `metadata.labels`.
    pub labels: Option<Map<String, Value>>,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.ownerReferences`.
    pub owners: Box<[Owner]>,
    /// `metadata.finalizers`.
    pub finalizers: Box<[Box<str>]>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub is_deleting: bool,
    /// The selectable fields where they stand in the object; `None` if the kind has none.
    pub fields: Option<Box<Value>>,
}

#[derive(Deserialize, Default)]
struct Head {
    #[serde(default)]
    metadata: HeadMetadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct HeadMetadata {
    #[serde(default)]
    labels: Option<Map<String, Value>>,
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
    #[serde(default)]
    finalizers: Option<Vec<Box<str>>>,
    #[serde(default)]
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

impl CachedObject {
    /// From the stored form.
    ///
    /// # Errors
    /// If the bytes are not an object's JSON.
    pub fn from_stored(
        registered: &Registered,
        key: ObjectKey,
        revision: u64,
        stored: &[u8],
    ) -> Result<Self, serde_json::Error> {
        let Head { metadata } = serde_json::from_slice(stored)?;
        let selectable = &registered.kind.selectable_fields;
        let fields = match selectable.is_empty() {
            true => None,
            false => Some(Box::new(project(&serde_json::from_slice(stored)?, &key, selectable))),
        };
        Ok(CachedObject {
            wire: encoding::at_revision(stored, revision),
            revision,
            labels: metadata.labels.filter(|labels| !labels.is_empty()),
            uid: metadata.uid,
            owners: metadata.owner_references.unwrap_or_default().into(),
            finalizers: metadata.finalizers.unwrap_or_default().into(),
            is_deleting: metadata.deletion_timestamp.is_some(),
            fields,
            key,
        })
    }

    /// What field selectors look at: names, and the selectable fields.
    pub fn with_fields<T>(&self, look: impl FnOnce(&Value) -> T) -> T {
        match &self.fields {
            Some(fields) => look(fields),
            None => look(&names_only(&self.key)),
        }
    }

    /// The object, parsed; with its `resourceVersion`.
    pub fn parse(&self) -> Value {
        serde_json::from_slice(&self.wire).unwrap_or(Value::Null)
    }
}

fn names_only(key: &ObjectKey) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".into(), key.name().into());
    if !key.namespace().is_empty() {
        metadata.insert("namespace".into(), key.namespace().into());
    }
    json!({"metadata": metadata})
}

/// The names and the fields at `paths` (`.spec.running`), at their places.
fn project(object: &Value, key: &ObjectKey, paths: &[String]) -> Value {
    let mut out = names_only(key);
    for path in paths {
        let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
        let found = parts.iter().try_fold(object, |at, part| at.get(part));
        if let Some(found) = found {
            let mut at = &mut out;
            for part in &parts {
                if !at.is_object() {
                    *at = json!({});
                }
                at = &mut at[*part];
            }
            *at = found.clone();
        }
    }
    out
}
