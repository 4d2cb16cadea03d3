//! Checks that lists of type set and map have no duplicate entries.

use super::path::Path;
use super::{ListType, Node};
use crate::object::field_error::{Errors, FieldError};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

pub(super) fn validate(object: &Value, root: &Node) -> Vec<FieldError> {
    let mut errors = Errors::default();
    visit(object, root, &Path::ROOT, &mut errors);
    errors.list
}

fn visit(value: &Value, node: &Node, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::Object(map) => {
            for (name, entry) in map {
                if let Some(child) = node.properties.get(name) {
                    visit(entry, child, &path.field(name), errors);
                } else if let Some(child) = &node.additional {
                    visit(entry, child, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match &node.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    for i in repeated(items.iter()).into_iter().take_while(|_| !errors.is_full()).collect::<Vec<_>>() {
                        errors.push(FieldError::duplicate(format!("{path}[{i}]"), items[i].clone()));
                    }
                }
                ListType::Map(keys) => map_keys(items, keys, path, errors),
            }
            if let Some(child) = &node.items {
                for (i, item) in items.iter().enumerate() {
                    visit(item, child, &path.index(i), errors);
                }
            }
        }
        _ => {}
    }
}

fn map_keys(items: &[Value], keys: &[String], path: &Path<'_>, errors: &mut Errors) {
    if let Some((i, item)) = items.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null()) {
        let detail = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(format!("{path}[{i}]"), item.clone(), detail));
        return;
    }
    let identities: Vec<Value> = items
        .iter()
        .map(|item| {
            let present = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Value::Object(present.collect::<Map<_, _>>())
        })
        .collect();
    for i in repeated(identities.iter()) {
        errors.push(FieldError::duplicate(format!("{path}[{i}]"), json!(identities[i])));
    }
}

/// Returns the index of the second occurrence of each repeated value.
fn repeated<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut out = Vec::new();
    for (i, value) in values.enumerate() {
        let times = seen.entry(crate::object::go_text::go_json(value)).or_default();
        *times += 1;
        if *times == 2 {
            out.push(i);
        }
    }
    out
}
