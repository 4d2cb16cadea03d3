//! Describes a kind to the server. The server knows no kind by name: each is registered, most from a CustomResourceDefinition.

mod crd;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crd::CrdError;

use crate::object::connect::Connect;
use crate::object::field_error::FieldError;
use crate::object::virtual_kind::Answer;

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Names are unique in the whole server.
    Cluster,
    /// Names are unique per namespace.
    Namespaced,
}

/// A column of `kubectl get`, in the form of a CustomResourceDefinition's `additionalPrinterColumns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrinterColumn {
    /// The heading.
    pub name: String,
    /// `integer`, `number`, `string`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub column_type: String,
    /// An OpenAPI format, or empty.
    #[serde(default)]
    pub format: String,
    /// Help for the reader.
    #[serde(default)]
    pub description: String,
    /// 0 is always shown, more only with `-o wide`.
    #[serde(default)]
    pub priority: i32,
    /// The path of the value, as a simple JSON path with a leading dot.
    pub json_path: String,
}

/// The paths of the values of the `scale` subresource; simple JSON paths with a leading dot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalePaths {
    /// The wanted number, under `.spec`.
    pub spec_replicas_path: String,
    /// The observed number, under `.status`.
    pub status_replicas_path: String,
    /// A label selector in text form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector_path: Option<String>,
}

/// The subresources of a kind that have a meaning in Kubernetes. Others are in [`ResourceKind::connect`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subresources {
    /// `status` is written through `/status` and nowhere else.
    pub status: bool,
    /// The generic view for autoscalers and `kubectl scale`.
    pub scale: Option<ScalePaths>,
}

/// The error that a refused claim causes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimRefusal {
    /// 422 Invalid with the field as cause: the user must change the object.
    #[default]
    Invalid,
    /// 409 Conflict: the client may try again, because the claim is likely to be released soon.
    Conflict,
}

/// One thing that at most one object of the whole server may hold at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimKey {
    /// The key of the claim, for example `disk/demo/hello`.
    pub key: String,
    /// The field that makes the claim, for example `spec.diskRefs[0].name`.
    pub field: String,
    /// A description for messages, for example `disk "hello"`.
    pub what: String,
    /// How a conflict is reported.
    pub refusal: ClaimRefusal,
}

/// The amount of one resource of a ledger that an object takes, from its creation to its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// The ledger, for example `host/host-1`.
    pub ledger: String,
    /// The resource, for example `memory`.
    pub resource: String,
    /// How much.
    pub amount: u64,
    /// The field that states the amount, for example `spec.memoryBytes`.
    pub field: String,
    /// The room of a ledger that no object gives. All objects that take from the ledger state the same.
    pub limit: Option<Limit>,
}

/// A fixed room of a ledger, which the user of an object chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How much.
    pub amount: u64,
    /// The refusal of an object that takes more.
    pub message: String,
}

/// The room that an object gives to one resource of a ledger. What several objects give is added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The ledger.
    pub ledger: String,
    /// The resource.
    pub resource: String,
    /// How much.
    pub amount: u64,
}

/// A pure function from an object's stored form to the amounts it takes: of its `spec` and its names only.
pub type TakesFn = Arc<dyn Fn(&[u8]) -> Result<Vec<Take>, serde_json::Error> + Send + Sync>;

/// A pure function from an object's stored form to the room that it gives.
pub type GivesFn = Arc<dyn Fn(&[u8]) -> Result<Vec<Room>, serde_json::Error> + Send + Sync>;

/// A pure function that returns the credentials that an object revokes, as [`crate::Identity::credentials`] names them.
pub type RevokesFn = Arc<dyn Fn(&Value) -> Vec<String> + Send + Sync>;

/// A pure function that returns the claims of an object.
pub type ClaimsFn = Arc<dyn Fn(&Value) -> Vec<ClaimKey> + Send + Sync>;

/// Validation beyond the schema and its rules; called with the new object and the old one, after schema validation.
pub type ValidateFn = Arc<dyn Fn(&Value, Option<&Value>) -> Vec<FieldError> + Send + Sync>;

/// Returns warnings about an accepted write; called with the new object and the stored one, if any.
pub type WarnFn = Arc<dyn Fn(&Value, Option<&Value>) -> Vec<String> + Send + Sync>;

/// Runs on every create and update after defaulting and before validation: normalises the object (for example folds a
/// Secret's `stringData` into `data`). The second argument is the stored object, if any.
pub type PrepareFn = Arc<dyn Fn(&mut Value, Option<&Value>) + Send + Sync>;

/// Converts an object from the stored form of another kind to this kind's form, or back.
pub type ConvertFn = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// A kind that serves the objects of another kind in a second form (events.k8s.io serves v1 Events).
#[derive(Clone)]
pub struct SharedStorage {
    /// The group of the kind that stores.
    pub group: String,
    /// Its plural.
    pub plural: String,
    /// Stored form to this kind's form.
    pub from_stored: ConvertFn,
    /// This kind's form to the stored form.
    pub to_stored: ConvertFn,
}

/// A kind as the server serves it.
#[derive(Clone)]
pub struct ResourceKind {
    /// Empty for the core group.
    pub group: String,
    /// For example `v1alpha1`.
    pub version: String,
    /// For example `Disk`.
    pub kind: String,
    /// For example `DiskList`.
    pub list_kind: String,
    /// The path element, for example `disks`.
    pub plural: String,
    /// For example `disk`.
    pub singular: String,
    /// For example `dsk`.
    pub short_names: Vec<String>,
    /// For example `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// The `openAPIV3Schema`: structural, with `x-kubernetes-*` extensions.
    pub schema: Value,
    /// Columns of the table form; without any, name and age are shown.
    pub columns: Vec<PrinterColumn>,
    /// Subresources with Kubernetes' own meaning.
    pub subresources: Subresources,
    /// Simple JSON paths with a leading dot that field selectors may name, beside `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<String>,
    /// Pointers to names of namespaces in objects, beside `metadata.namespace`: views show their own names there.
    pub namespace_references: &'static [&'static str],
    /// The claims of an object.
    pub claims: Option<ClaimsFn>,
    /// The amounts that objects take from ledgers.
    pub takes: Option<TakesFn>,
    /// The room that objects give to ledgers.
    pub gives: Option<GivesFn>,
    /// The credentials that an object revokes while it exists.
    pub revokes: Option<RevokesFn>,
    /// Rules beyond the schema.
    pub validate: Option<ValidateFn>,
    /// Warnings about what is valid and probably not meant.
    pub warn: Option<WarnFn>,
    /// Normalisation before validation.
    pub prepare: Option<PrepareFn>,
    /// Subresources that are streams or responses of other programs, by name: `console`, `log`, …
    pub connect: BTreeMap<String, Arc<dyn Connect>>,
    /// Set if objects are never stored: answers creates.
    pub answer: Option<Arc<dyn Answer>>,
    /// Set if the objects are stored by another kind.
    pub shared_storage: Option<SharedStorage>,
    /// Whether `metadata.generation` is maintained: true for kinds from definitions, false for most core kinds.
    pub has_generation: bool,
    /// Whether clients know the kind as one of Kubernetes' Go types, and so send strategic merge patches for it.
    pub is_typed: bool,
    /// How long after their last write objects are deleted. For events, which nothing else cleans up.
    pub lifetime: Option<Duration>,
}

impl ResourceKind {
    /// Returns a namespaced kind with names and a schema; the caller assigns the other fields.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, schema: Value) -> Self {
        ResourceKind {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List"),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
            schema,
            columns: Vec::new(),
            subresources: Subresources::default(),
            selectable_fields: Vec::new(),
            namespace_references: &[],
            claims: None,
            takes: None,
            gives: None,
            revokes: None,
            validate: None,
            warn: None,
            prepare: None,
            connect: BTreeMap::new(),
            answer: None,
            shared_storage: None,
            has_generation: true,
            is_typed: false,
            lifetime: None,
        }
    }

    /// `group/version`, or `version` alone in the core group: the `apiVersion` of objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group` as in messages, or `plural` alone in the core group.
    pub fn qualified_plural(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Kind.group` as in messages, or `Kind` alone in the core group.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.clone() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// Whether objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Returns the index of a selectable field, given as `spec.running`.
    pub fn selectable_number(&self, field: &str) -> Option<usize> {
        self.selectable_fields.iter().position(|path| path.strip_prefix('.').unwrap_or(path) == field)
    }
}

impl fmt::Debug for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceKind({}/{}, {})", self.api_version(), self.plural, self.kind)
    }
}
