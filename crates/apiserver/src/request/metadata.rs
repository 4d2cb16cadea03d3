//! `metadata` as the typed thing that it is: known fields only, each of its type.

use serde_json::{Map, Value};

enum Type {
    Text,
    Int,
    Bool,
    Time,
    TextMap,
    Texts,
    /// Free JSON.
    Any,
    Many(&'static [(&'static str, Type)]),
}

use Type::{Any, Bool, Int, Many, Text, TextMap, Texts, Time};

const FIELDS: &[(&str, Type)] = &[
    ("name", Text),
    ("generateName", Text),
    ("namespace", Text),
    ("selfLink", Text),
    ("uid", Text),
    ("resourceVersion", Text),
    ("generation", Int),
    ("creationTimestamp", Time),
    ("deletionTimestamp", Time),
    ("deletionGracePeriodSeconds", Int),
    ("labels", TextMap),
    ("annotations", TextMap),
    ("ownerReferences", Many(OWNER)),
    ("finalizers", Texts),
    ("managedFields", Many(MANAGED)),
];
const OWNER: &[(&str, Type)] = &[
    ("apiVersion", Text),
    ("kind", Text),
    ("name", Text),
    ("uid", Text),
    ("controller", Bool),
    ("blockOwnerDeletion", Bool),
];
const MANAGED: &[(&str, Type)] = &[
    ("manager", Text),
    ("operation", Text),
    ("apiVersion", Text),
    ("time", Time),
    ("fieldsType", Text),
    ("fieldsV1", Any),
    ("subresource", Text),
];

/// Drops unknown fields and nulls from an object's `metadata` and returns the paths of the unknown ones.
///
/// # Errors
/// In Go's words, for a value of the wrong type.
pub(crate) fn admit(object: &mut Value) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    match object.get_mut("metadata") {
        None => {}
        Some(Value::Object(metadata)) => admit_fields(metadata, FIELDS, "metadata", "ObjectMeta", &mut unknown)?,
        Some(Value::Null) => {
            if let Some(object) = object.as_object_mut() {
                object.shift_remove("metadata");
            }
        }
        Some(other) => return Err(mismatch(other, ".metadata", "ObjectMeta")),
    }
    Ok(unknown)
}

fn admit_fields(
    map: &mut Map<String, Value>,
    fields: &[(&str, Type)],
    path: &str,
    go_name: &str,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    map.retain(|key, value| {
        let is_known = fields.iter().any(|(name, _)| name == key);
        if !is_known {
            unknown.push(format!("{path}.{key}"));
        }
        is_known && !value.is_null()
    });
    for (name, kind) in fields {
        if let Some(value) = map.get_mut(*name) {
            admit_value(value, kind, &format!("{path}.{name}"), &format!("{go_name}.{name}"), unknown)?;
        }
    }
    Ok(())
}

fn admit_value(
    value: &mut Value,
    kind: &Type,
    path: &str,
    go_name: &str,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    let expect = |is_right: bool, value: &Value, go_type: &str| {
        if is_right { Ok(()) } else { Err(mismatch(value, go_name, go_type)) }
    };
    match kind {
        Any => Ok(()),
        Text => expect(value.is_string(), value, "string"),
        Bool => expect(value.is_boolean(), value, "bool"),
        Int => expect(value.is_i64() || value.is_u64(), value, "int64"),
        Time => match value.as_str() {
            Some(text) if text.parse::<jiff::Timestamp>().is_ok() => Ok(()),
            Some(text) => {
                Err(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as a time"))
            }
            None => Err(mismatch(value, go_name, "string")),
        },
        TextMap => {
            let found = mismatch(value, go_name, "map[string]string");
            let map = value.as_object_mut().ok_or(found)?;
            for entry in map.values_mut() {
                if entry.is_null() {
                    *entry = Value::String(String::new());
                }
                expect(entry.is_string(), entry, "string")?;
            }
            Ok(())
        }
        Texts => {
            let items = value.as_array().ok_or_else(|| mismatch(value, go_name, "[]string"))?;
            items.iter().try_for_each(|item| expect(item.is_string(), item, "string"))
        }
        Many(fields) => {
            let found = mismatch(value, go_name, "[]v1");
            let items = value.as_array_mut().ok_or(found)?;
            for (index, item) in items.iter_mut().enumerate() {
                let found = mismatch(item, go_name, "v1");
                let map = item.as_object_mut().ok_or(found)?;
                admit_fields(map, fields, &format!("{path}[{index}]"), go_name, unknown)?;
            }
            Ok(())
        }
    }
}

fn mismatch(value: &Value, field: &str, go_type: &str) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("json: cannot unmarshal {found} into Go struct field {field} of type {go_type}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_and_nulls_go_and_wrong_types_are_named() {
        let mut object = json!({"metadata": {
            "name": "a", "creationTimestamp": null, "colour": 1, "ownerReferences": [{"kind": "K", "size": 2}],
        }});
        assert_eq!(admit(&mut object).unwrap(), ["metadata.colour", "metadata.ownerReferences[0].size"]);
        assert_eq!(object, json!({"metadata": {"name": "a", "ownerReferences": [{"kind": "K"}]}}));
        let wrong = admit(&mut json!({"metadata": {"labels": {"a": 1}}}));
        let expected = "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string";
        assert_eq!(wrong.unwrap_err(), expected);
        assert!(admit(&mut json!({"metadata": {"deletionTimestamp": "yesterday"}})).is_err());
        assert!(admit(&mut json!({"metadata": []})).is_err());
    }
}
