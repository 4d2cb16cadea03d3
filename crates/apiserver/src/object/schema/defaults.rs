//! Fills in defaults, and handles nulls as Kubernetes does.

use super::Node;
use serde_json::Value;

/// Drops nulls where null is not allowed and nothing replaces them, then fills in defaults.
pub(super) fn default(object: &mut Value, root: &Node) {
    drop_nulls(object, root);
    fill(object, root);
}

fn is_misplaced_null(value: &Value, node: &Node) -> bool {
    value.is_null() && !node.nullable
}

fn drop_nulls(value: &mut Value, node: &Node) {
    match value {
        Value::Object(map) => {
            let child_of = |name: &str| node.properties.get(name).or(node.additional.as_deref());
            map.retain(|name, entry| match child_of(name) {
                Some(child) if is_misplaced_null(entry, child) => child.default.is_some(),
                _ => true,
            });
            for (name, entry) in map.iter_mut() {
                if let Some(child) = child_of(name) {
                    drop_nulls(entry, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                items.iter_mut().for_each(|item| drop_nulls(item, child));
            }
        }
        _ => {}
    }
}

pub(super) fn fill(value: &mut Value, node: &Node) {
    match value {
        Value::Object(map) => {
            for (name, child) in &node.properties {
                let Some(default) = &child.default else { continue };
                match map.get_mut(name) {
                    None => {
                        map.insert(name.clone(), default.clone());
                    }
                    Some(entry) if is_misplaced_null(entry, child) => *entry = default.clone(),
                    Some(_) => {}
                }
            }
            for (name, entry) in map.iter_mut() {
                if let Some(child) = node.properties.get(name) {
                    fill(entry, child);
                } else if let Some(child) = &node.additional {
                    replace_null(entry, child);
                    fill(entry, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for item in items {
                    replace_null(item, child);
                    fill(item, child);
                }
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, node: &Node) {
    if is_misplaced_null(value, node)
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
}
