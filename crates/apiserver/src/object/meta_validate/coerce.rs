//! Brings `metadata` into the form of Kubernetes' ObjectMeta: drops unknown fields, refuses wrong types.

use crate::object::field_error::UnknownField;
use crate::object::problems::Problems;
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Malformed `metadata`: HTTP 400 with Kubernetes' message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A value of a wrong type.
    #[error("json: cannot unmarshal {found} into Go struct field ObjectMeta.{field} of type {expected}")]
    Type {
        /// The JSON type found.
        found: &'static str,
        /// The field, below `metadata`.
        field: String,
        /// The expected type.
        expected: &'static str,
    },
    /// A string that is not a time.
    #[error("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"")]
    Time(String),
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Integer,
    Bool,
    Time,
    Any,
    Texts,
    TextMap,
    Structs(&'static [(&'static str, Form)]),
}

const OWNER: &[(&str, Form)] = &[
    ("apiVersion", Form::Text),
    ("kind", Form::Text),
    ("name", Form::Text),
    ("uid", Form::Text),
    ("controller", Form::Bool),
    ("blockOwnerDeletion", Form::Bool),
];
const MANAGED: &[(&str, Form)] = &[
    ("manager", Form::Text),
    ("operation", Form::Text),
    ("apiVersion", Form::Text),
    ("time", Form::Time),
    ("fieldsType", Form::Text),
    ("fieldsV1", Form::Any),
    ("subresource", Form::Text),
];
const META: &[(&str, Form)] = &[
    ("name", Form::Text),
    ("generateName", Form::Text),
    ("namespace", Form::Text),
    ("selfLink", Form::Text),
    ("uid", Form::Text),
    ("resourceVersion", Form::Text),
    ("generation", Form::Integer),
    ("creationTimestamp", Form::Time),
    ("deletionTimestamp", Form::Time),
    ("deletionGracePeriodSeconds", Form::Integer),
    ("labels", Form::TextMap),
    ("annotations", Form::TextMap),
    ("ownerReferences", Form::Structs(OWNER)),
    ("finalizers", Form::Texts),
    ("managedFields", Form::Structs(MANAGED)),
];

/// Normalises `metadata`: unknown fields are dropped and reported (`metadata.colour`), nulls and empty values are dropped. So an
/// empty list of managedFields has no effect, and only `[{}]` resets them.
///
/// # Errors
/// If a known field has a wrong type.
pub fn coerce_metadata(object: &mut Value) -> Result<Vec<UnknownField>, MetadataError> {
    let mut unknown = Problems::default();
    let Some(metadata) = object.get_mut("metadata") else { return Ok(Vec::new()) };
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let Some(map) = metadata.as_object_mut() else {
        return Err(mismatch("metadata", metadata, "v1.ObjectMeta"));
    };
    fields(map, META, "metadata", &mut unknown)?;
    let mut paths = unknown.into_paths();
    paths.sort_unstable();
    Ok(paths.into_iter().map(|path| UnknownField { path }).collect())
}

fn mismatch(field: &str, value: &Value, expected: &'static str) -> MetadataError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    // Go names the field, not the entry of the list or map.
    let field = field.strip_prefix("metadata.").unwrap_or(field).split('[').next().unwrap_or_default();
    MetadataError::Type { found, field: field.to_string(), expected }
}

fn fields(
    map: &mut Map<String, Value>,
    forms: &[(&str, Form)],
    path: &str,
    unknown: &mut Problems,
) -> Result<(), MetadataError> {
    let mut drop = HashSet::new();
    for (key, value) in map.iter_mut() {
        let here = format!("{path}.{key}");
        let Some((_, form)) = forms.iter().find(|(name, _)| name == key) else {
            unknown.add(|| here);
            drop.insert(key.clone());
            continue;
        };
        if value.is_null() {
            drop.insert(key.clone());
            continue;
        }
        coerce(value, *form, &here, unknown)?;
        let is_empty = match value {
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty() && key != "fieldsV1",
            Value::Number(n) => key == "generation" && n.as_i64() == Some(0),
            _ => false,
        };
        // Owner references keep empty strings, so that validation can refuse them with their path.
        if is_empty && path == "metadata" {
            drop.insert(key.clone());
        }
    }
    map.retain(|key, _| !drop.contains(key));
    Ok(())
}

fn coerce(value: &mut Value, form: Form, path: &str, unknown: &mut Problems) -> Result<(), MetadataError> {
    match form {
        Form::Any => {}
        Form::Text if value.is_string() => {}
        Form::Text => {
            let expected = if path.ends_with(".uid") { "types.UID" } else { "string" };
            return Err(mismatch(path, value, expected));
        }
        Form::Bool if value.is_boolean() => {}
        Form::Bool => return Err(mismatch(path, value, "bool")),
        Form::Integer if value.is_i64() || value.is_u64() => {}
        Form::Integer => return Err(mismatch(path, value, "int64")),
        Form::Time => {
            let Some(text) = value.as_str() else { return Err(mismatch(path, value, "v1.Time")) };
            if text.parse::<jiff::Timestamp>().is_err() {
                return Err(MetadataError::Time(text.to_string()));
            }
        }
        Form::Texts => match value.as_array_mut() {
            None => return Err(mismatch(path, value, "[]string")),
            Some(items) => {
                for item in items {
                    null_to_empty(item);
                    if !item.is_string() {
                        return Err(mismatch(path, item, "string"));
                    }
                }
            }
        },
        Form::TextMap => match value.as_object_mut() {
            None => return Err(mismatch(path, value, "map[string]string")),
            Some(map) => {
                for item in map.values_mut() {
                    null_to_empty(item);
                    if !item.is_string() {
                        return Err(mismatch(path, item, "string"));
                    }
                }
            }
        },
        Form::Structs(forms) => match value.as_array_mut() {
            None => return Err(mismatch(path, value, "[]struct")),
            Some(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    let here = format!("{path}[{i}]");
                    match item.as_object_mut() {
                        None => return Err(mismatch(&here, item, "struct")),
                        Some(map) => fields(map, forms, &here, unknown)?,
                    }
                }
            }
        },
    }
    Ok(())
}

fn null_to_empty(value: &mut Value) {
    if value.is_null() {
        *value = Value::from("");
    }
}
