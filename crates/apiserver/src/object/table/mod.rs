//! `meta.k8s.io/v1` Tables from printer columns, and PartialObjectMetadata.

mod age;
pub mod jsonpath;

#[cfg(test)]
mod tests;

use crate::object::go_text::{go_json, go_number};
use jiff::Timestamp;
use jsonpath::JsonPath;
use serde_json::{Map, Value, json};

pub use age::human_duration;

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

impl IncludeObject {
    /// From the query parameter; empty is the default.
    ///
    /// # Errors
    /// The message of the HTTP 400 for any other value.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
                crate::object::go_text::go_quote(other)
            )),
        }
    }
}

/// Columns that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ColumnError {
    /// A column without a needed field.
    #[error("printer column {name:?}: {problem}")]
    Column {
        /// The column's name.
        name: String,
        /// The fault.
        problem: &'static str,
    },
    /// A column whose path cannot be parsed.
    #[error("printer column {name:?}")]
    Path {
        /// The column's name.
        name: String,
        /// The fault of the path.
        #[source]
        source: jsonpath::PathError,
    },
}

#[derive(Debug, Clone)]
struct Column {
    definition: Value,
    kind: String,
    path: JsonPath,
}

/// Parsed printer columns of a kind, without the Name column that always comes first.
#[derive(Debug, Clone)]
pub struct Columns {
    columns: Vec<Column>,
}

const NAME_HELP: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE_HELP: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

impl Columns {
    /// From a CRD version's `additionalPrinterColumns` (an array; null or empty for the default: Age).
    ///
    /// # Errors
    /// If a column lacks its name, type or path, or the path cannot be parsed.
    pub fn parse(columns: &Value) -> Result<Columns, ColumnError> {
        let default = json!([{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": AGE_HELP}]);
        let given = columns.as_array().filter(|c| !c.is_empty());
        let mut out = Vec::new();
        for column in given.or(default.as_array()).into_iter().flatten() {
            let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default();
            let name = text("name").to_string();
            let problem = |problem| ColumnError::Column { name: name.clone(), problem };
            if name.is_empty() {
                return Err(problem("a name is needed"));
            }
            if !matches!(text("type"), "integer" | "number" | "string" | "boolean" | "date") {
                return Err(problem("the type must be integer, number, string, boolean or date"));
            }
            let path =
                JsonPath::parse(text("jsonPath")).map_err(|source| ColumnError::Path { name: name.clone(), source })?;
            let description = match text("description") {
                "" => format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath")),
                given => given.to_string(),
            };
            let priority = column.get("priority").and_then(Value::as_i64).unwrap_or_default();
            out.push(Column {
                definition: definition(&name, text("type"), text("format"), &description, priority),
                kind: text("type").to_string(),
                path,
            });
        }
        Ok(Columns { columns: out })
    }

    /// `columnDefinitions` of the Table.
    pub fn definitions(&self) -> Value {
        std::iter::once(definition("Name", "string", "name", NAME_HELP, 0))
            .chain(self.columns.iter().map(|c| c.definition.clone()))
            .collect()
    }

    /// The cells of one object's row.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        std::iter::once(Value::from(name)).chain(self.columns.iter().map(|c| c.cell(object, now))).collect()
    }
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

impl Column {
    /// Returns null for a value that does not fit the column's type; kubectl shows `<none>`.
    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.find(object).first().copied() else { return Value::Null };
        match (self.kind.as_str(), value) {
            // Kubernetes prints a null that is present this way.
            ("string", Value::Null) => Value::from("<no value>"),
            ("string", value) => Value::from(printed(value)),
            ("integer", Value::Number(n)) => match n.as_i64() {
                Some(int) => Value::from(int),
                None => Value::from(n.as_f64().unwrap_or_default() as i64),
            },
            ("number", Value::Number(n)) => Value::Number(n.clone()),
            ("boolean", Value::Bool(b)) => Value::Bool(*b),
            ("date", Value::String(text)) => Value::from(age::age(Some(text), now)),
            _ => Value::Null,
        }
    }
}

fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => go_number(n),
        Value::Bool(b) => b.to_string(),
        other => go_json(other),
    }
}

/// The Table of a list (`list_meta` = its `metadata`) or of single objects. `with_headers = false` leaves the column
/// definitions out (later events of a watch, `noHeaders`).
pub fn to_table(
    columns: &Columns,
    items: &[&Value],
    list_meta: &Value,
    include: IncludeObject,
    with_headers: bool,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            let object = match include {
                IncludeObject::None => Value::Null,
                IncludeObject::Metadata => partial_object_metadata(item),
                IncludeObject::Object => (*item).clone(),
            };
            json!({"cells": columns.cells(item, now), "object": object})
        })
        .collect();
    let mut meta = Map::new();
    for key in ["resourceVersion", "continue", "remainingItemCount"] {
        if let Some(value) = list_meta.get(key) {
            meta.insert(key.to_string(), value.clone());
        }
    }
    let definitions = if with_headers { columns.definitions() } else { Value::Null };
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "columnDefinitions": definitions, "rows": rows})
}

/// An object reduced to `meta.k8s.io/v1` PartialObjectMetadata.
pub fn partial_object_metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata")})
}

/// A list as `meta.k8s.io/v1` PartialObjectMetadataList.
pub fn partial_object_metadata_list(items: &[&Value], list_meta: &Value) -> Value {
    let items: Vec<Value> = items.iter().map(|item| partial_object_metadata(item)).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta, "items": items})
}
