//! Kinds from CustomResourceDefinitions.

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::{PrinterColumn, ResourceKind, ScalePaths, Scope, Subresources};

/// A definition that cannot be registered.
#[derive(Debug, Error)]
pub enum CrdError {
    /// The document is not a valid definition.
    #[error("CustomResourceDefinition cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// No version is served and stored.
    #[error("CustomResourceDefinition {0:?} has no version that is both served and stored")]
    NoVersion(String),
    /// Several versions are served; conversion between versions is not supported.
    #[error("CustomResourceDefinition {0:?} serves several versions: exactly one is supported")]
    SeveralVersions(String),
}

#[derive(Deserialize)]
struct Definition {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    names: Names,
    scope: String,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    kind: String,
    plural: String,
    #[serde(default)]
    singular: Option<String>,
    #[serde(default)]
    list_kind: Option<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    name: String,
    served: bool,
    storage: bool,
    #[serde(default)]
    schema: Option<Validation>,
    #[serde(default)]
    subresources: Option<SubresourcesSpec>,
    #[serde(default)]
    additional_printer_columns: Vec<PrinterColumn>,
    #[serde(default)]
    selectable_fields: Vec<SelectableField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Validation {
    #[serde(rename = "openAPIV3Schema")]
    open_api_v3_schema: Value,
}

#[derive(Deserialize)]
struct SubresourcesSpec {
    #[serde(default)]
    status: Option<Value>,
    #[serde(default)]
    scale: Option<ScalePaths>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectableField {
    json_path: String,
}

impl ResourceKind {
    /// Returns the kind that a CustomResourceDefinition (`apiextensions.k8s.io/v1`) describes.
    ///
    /// # Errors
    /// If the definition is malformed or does not serve exactly one version.
    pub fn from_crd(definition: &Value) -> Result<Self, CrdError> {
        let Definition { metadata, spec } = serde_json::from_value(definition.clone()).map_err(CrdError::Malformed)?;
        let mut served = spec.versions.into_iter().filter(|version| version.served);
        let version = served
            .next()
            .filter(|version| version.storage)
            .ok_or_else(|| CrdError::NoVersion(metadata.name.clone()))?;
        if served.next().is_some() {
            return Err(CrdError::SeveralVersions(metadata.name));
        }
        let schema = version
            .schema
            .map(|schema| schema.open_api_v3_schema)
            .unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
        let mut kind = ResourceKind::new(&spec.group, &version.name, &spec.names.kind, &spec.names.plural, schema);
        if let Some(list_kind) = spec.names.list_kind {
            kind.list_kind = list_kind;
        }
        if let Some(singular) = spec.names.singular {
            kind.singular = singular;
        }
        kind.short_names = spec.names.short_names;
        kind.categories = spec.names.categories;
        kind.scope = if spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced };
        kind.columns = version.additional_printer_columns;
        kind.subresources = version
            .subresources
            .map(|it| Subresources { status: it.status.is_some(), scale: it.scale })
            .unwrap_or_default();
        kind.selectable_fields = version.selectable_fields.into_iter().map(|it| it.json_path).collect();
        Ok(kind)
    }
}
