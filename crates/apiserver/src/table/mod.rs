//! `meta.k8s.io/v1` Tables from printer columns.

use jiff::Timestamp;
use serde_json::{Value, json};

/// How much of the object each row carries (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// PartialObjectMetadata (the default).
    #[default]
    Metadata,
    /// All of it.
    Object,
}

/// Columns that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ColumnError {
    /// A column without a needed field, or with one of the wrong type.
    #[error("printer column {name:?}: {problem}")]
    Column {
        /// The column's name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// Parsed printer columns of a kind.
#[derive(Debug, Clone)]
pub struct Columns {}

impl Columns {
    /// From a CRD version's `additionalPrinterColumns` (an array, or null for the default: Age).
    pub fn parse(columns: &Value) -> Result<Columns, ColumnError> {
        let _ = columns;
        Ok(Columns {})
    }
}

/// The Table of a list (`list_meta` = its `metadata`) or of single objects. `with_headers = false` leaves the column
/// definitions out (later events of a watch).
pub fn to_table(
    columns: &Columns,
    items: &[&Value],
    list_meta: &Value,
    include: IncludeObject,
    with_headers: bool,
    now: Timestamp,
) -> Value {
    let _ = (columns, include, with_headers, now);
    let rows: Vec<Value> = items
        .iter()
        .map(|item| json!({"cells": [item.pointer("/metadata/name")], "object": item}))
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta,
        "columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}], "rows": rows})
}

/// An object reduced to `meta.k8s.io/v1` PartialObjectMetadata.
pub fn partial_object_metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata")})
}
