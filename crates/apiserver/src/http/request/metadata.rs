//! Decodes `metadata` as a typed structure: known fields only, each of its type.

use serde_json::{Map, Value};

use super::go_time;
use crate::object::problems::Problems;

enum Type {
    Text,
    Int,
    Bool,
    Time,
    TextMap,
    Texts,
    Uid,
    /// Free JSON.
    Any,
    /// A list whose items have a Go type of this name.
    Many(&'static str, &'static [(&'static str, Type)]),
}

use Type::{Any, Bool, Int, Many, Text, TextMap, Texts, Time, Uid};

const FIELDS: &[(&str, Type)] = &[
    ("name", Text),
    ("generateName", Text),
    ("namespace", Text),
    ("selfLink", Text),
    ("uid", Uid),
    ("resourceVersion", Text),
    ("generation", Int),
    ("creationTimestamp", Time),
    ("deletionTimestamp", Time),
    ("deletionGracePeriodSeconds", Int),
    ("labels", TextMap),
    ("annotations", TextMap),
    ("ownerReferences", Many("OwnerReference", OWNER)),
    ("finalizers", Texts),
    ("managedFields", Many("ManagedFieldsEntry", MANAGED)),
];
const OWNER: &[(&str, Type)] = &[
    ("apiVersion", Text),
    ("kind", Text),
    ("name", Text),
    ("uid", Uid),
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
/// If a value has the wrong type, in Go's wording. With several errors the same one as in Kubernetes: its decoder gets the fields
/// sorted by name, remembers the first wrong type and continues; at an invalid time it stops, and reports that.
pub(crate) fn admit(object: &mut Value) -> Result<Vec<String>, String> {
    let mut found = Found::default();
    match object.get_mut("metadata") {
        None => {}
        Some(Value::Object(metadata)) => found.fields(metadata, FIELDS, "metadata", ("ObjectMeta", ""))?,
        Some(Value::Null) => {
            if let Some(object) = object.as_object_mut() {
                object.shift_remove("metadata");
            }
        }
        Some(other) => {
            let found = json_type(other, "");
            return Err(format!("json: cannot unmarshal {found} into Go value of type v1.ObjectMeta"));
        }
    }
    match found.mismatch {
        Some(mismatch) => Err(mismatch),
        None => Ok(found.unknown.into_paths()),
    }
}

/// The problems found in `metadata` so far.
#[derive(Default)]
struct Found {
    unknown: Problems,
    mismatch: Option<String>,
}

impl Found {
    fn expect(&mut self, is_right: bool, value: &Value, field: &str, go_type: &str) {
        if !is_right && self.mismatch.is_none() {
            self.mismatch = Some(mismatch(value, field, go_type));
        }
    }

    fn fields(
        &mut self,
        map: &mut Map<String, Value>,
        fields: &[(&str, Type)],
        path: &str,
        (go_type, go_path): (&str, &str),
    ) -> Result<(), String> {
        let mut given: Vec<String> = map.keys().cloned().collect();
        given.sort_unstable();
        for name in given {
            let Some((_, kind)) = fields.iter().find(|it| it.0 == name) else {
                self.unknown.add(|| format!("{path}.{name}"));
                continue;
            };
            match map.get_mut(&name) {
                Some(value) if !value.is_null() => {
                    let go_path = if go_path.is_empty() { name.clone() } else { format!("{go_path}.{name}") };
                    self.value(value, kind, &format!("{path}.{name}"), (go_type, &go_path))?;
                }
                _ => {}
            }
        }
        map.retain(|name, value| !value.is_null() && fields.iter().any(|it| it.0 == name));
        Ok(())
    }

    fn value(&mut self, value: &mut Value, kind: &Type, path: &str, go: (&str, &str)) -> Result<(), String> {
        let go_name = &format!("{}.{}", go.0, go.1);
        match kind {
            Any => {}
            Text => self.expect(value.is_string(), value, go_name, "string"),
            Uid => self.expect(value.is_string(), value, go_name, "types.UID"),
            Bool => self.expect(value.is_boolean(), value, go_name, "bool"),
            Int => self.expect(value.is_i64() || value.is_u64(), value, go_name, "int64"),
            Time => {
                let text = value.as_str().ok_or_else(|| mismatch(value, go_name, "string"))?;
                if let Some(problem) = go_time::problem(text) {
                    return Err(problem);
                }
            }
            TextMap => {
                self.expect(value.is_object(), value, go_name, "map[string]string");
                let mut entries: Vec<(&String, &mut Value)> = value.as_object_mut().into_iter().flatten().collect();
                entries.sort_by_key(|it| it.0);
                for (_, entry) in entries {
                    if entry.is_null() {
                        *entry = Value::String(String::new());
                    }
                    self.expect(entry.is_string(), entry, go_name, "string");
                }
            }
            Texts => {
                self.expect(value.is_array(), value, go_name, "[]string");
                for item in value.as_array().into_iter().flatten() {
                    self.expect(item.is_string(), item, go_name, "string");
                }
            }
            Many(of, fields) => {
                self.expect(value.is_array(), value, go_name, &format!("[]v1.{of}"));
                for (index, item) in value.as_array_mut().into_iter().flatten().enumerate() {
                    self.expect(item.is_object(), item, go_name, &format!("v1.{of}"));
                    if let Some(map) = item.as_object_mut() {
                        self.fields(map, fields, &format!("{path}[{index}]"), (of, go.1))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn mismatch(value: &Value, field: &str, go_type: &str) -> String {
    let found = json_type(value, go_type);
    format!("json: cannot unmarshal {found} into Go struct field {field} of type {go_type}")
}

/// Returns the name that Go has for a JSON value which a Go type cannot hold.
fn json_type(value: &Value, go_type: &str) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if go_type == "int64" => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
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
        let both = admit(&mut json!({"metadata": {"name": 5, "labels": {"b": true, "a": 1}}}));
        assert_eq!(both.unwrap_err(), expected, "the first by name");
        let late = admit(&mut json!({"metadata": {"labels": [], "managedFields": [{"time": 1}]}}));
        assert_eq!(
            late.unwrap_err(),
            "json: cannot unmarshal number into Go struct field ManagedFieldsEntry.managedFields.time of type string",
            "a time ends it"
        );
    }
}
