//! One object as the cache holds it: the bytes that every reader gets, and the few fields that are used without parsing them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::object::kind::{Room, Take};
use crate::object::registry::Registered;
use crate::object::selector::value_text;
use crate::state::storage::encoding;
use crate::state::storage::keys::ObjectKey;
use crate::state::storage::pick::pick;

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

/// The part of an object that ledgers count. One that cannot be read stays visible and counts for nothing, so that it stops no other.
fn counted<T>(read: Result<Option<Vec<T>>, serde_json::Error>, key: &ObjectKey) -> Box<[T]> {
    match read {
        Ok(amounts) => amounts.unwrap_or_default().into(),
        Err(error) => {
            tracing::error!(%error, %key, "a stored object has not the form of its kind: ledgers do not count it");
            Box::default()
        }
    }
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
    /// `metadata.labels`, sorted.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.ownerReferences`.
    pub owners: Box<[Owner]>,
    /// `metadata.finalizers`.
    pub finalizers: Box<[Box<str>]>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub is_deleting: bool,
    /// Returns the amounts that the object takes from ledgers.
    pub takes: Box<[Take]>,
    /// The room that the object gives to ledgers.
    pub gives: Box<[Room]>,
    /// The texts of the kind's selectable fields, in its order.
    pub fields: Box<[Box<str>]>,
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
    labels: Option<BTreeMap<Box<str>, Value>>,
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
    /// Reads the stored form.
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
        let fields = pick(stored, &registered.kind.selectable_fields)?;
        let labels = metadata.labels.into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key, value.as_str()?.into())));
        let takes = registered.kind.takes.as_ref().map(|takes| takes(stored)).transpose();
        let gives = registered.kind.gives.as_ref().map(|gives| gives(stored)).transpose();
        Ok(CachedObject {
            takes: counted(takes, &key),
            gives: counted(gives, &key),
            wire: encoding::at_revision(stored, revision),
            revision,
            labels: labels.collect(),
            uid: metadata.uid,
            owners: metadata.owner_references.unwrap_or_default().into(),
            finalizers: metadata.finalizers.unwrap_or_default().into(),
            is_deleting: metadata.deletion_timestamp.is_some(),
            fields: fields.iter().map(|value| value_text(value.as_ref()).into()).collect(),
            key,
        })
    }

    /// Returns the value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let position = self.labels.binary_search_by(|(label, _)| (**label).cmp(key)).ok()?;
        Some(&self.labels[position].1)
    }

    /// Returns the text of a selectable field (`spec.running`, `metadata.name`); empty for any other field.
    pub fn field(&self, registered: &Registered, field: &str) -> &str {
        match field {
            "metadata.name" => self.key.name(),
            "metadata.namespace" => self.key.namespace(),
            _ => {
                registered.kind.selectable_number(field).and_then(|number| self.fields.get(number)).map_or("", |it| it)
            }
        }
    }

    /// Parses the object, with its `resourceVersion`.
    pub fn parse(&self) -> Value {
        serde_json::from_slice(&self.wire).unwrap_or(Value::Null)
    }
}
