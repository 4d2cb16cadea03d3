//! Checks whether an object fits the schema's structure, with the messages of structured-merge-diff.

use super::path::{Step, display};
use super::types::{Scalar, Shape, Ty};
use crate::object::go_text::{go_number, go_quote};
use serde_json::Value;
use std::collections::BTreeSet;

/// Stored objects may hold duplicates in lists of type set and map; applied ones may not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Duplicates {
    Allowed,
    Refused,
}

/// `Err` with the text for the client.
pub(super) fn check(object: &Value, ty: Ty<'_>, duplicates: Duplicates) -> Result<(), String> {
    let mut errors = Vec::new();
    visit(object, ty, duplicates, &mut Vec::new(), &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(std::iter::once("errors:".to_string())
            .chain(many.iter().map(|e| format!("  {e}")))
            .collect::<Vec<_>>()
            .join("\n")),
    }
}

/// Further mistakes are left out: one mistake may be as long as the object.
const MAX_ERRORS: usize = 100;

fn visit(value: &Value, ty: Ty<'_>, duplicates: Duplicates, path: &mut Vec<Step>, errors: &mut Vec<String>) {
    if errors.len() >= MAX_ERRORS {
        return;
    }
    let at = |path: &[Step], message: String| match path {
        [] => message,
        path => format!("{}: {message}", display(path)),
    };
    if let Ty::Undeclared = ty {
        errors.push(at(path, "field not declared in schema".to_string()));
        return;
    }
    match ty.shape(value) {
        Shape::Scalar(scalar) => {
            let (fits, expected) = match scalar {
                Scalar::Numeric => (value.is_number(), "numeric (int or float)"),
                Scalar::String => (value.is_string(), "string"),
                Scalar::Boolean => (value.is_boolean(), "boolean"),
                Scalar::Untyped => (!value.is_array() && !value.is_object(), "any scalar"),
            };
            if !fits && !value.is_null() {
                let found = match scalar {
                    Scalar::Numeric => go_type(value).to_string(),
                    Scalar::String => described_exactly(value),
                    _ => described(value),
                };
                errors.push(at(path, format!("expected {expected}, got {found}")));
            }
        }
        Shape::List(shape) => {
            let items = match value {
                Value::Array(items) => items,
                Value::Null => return,
                other => return errors.push(at(path, format!("expected list, got {}", described(other)))),
            };
            // Atomic lists are checked too: their items also have a type.
            let mut seen = BTreeSet::new();
            for (i, item) in items.iter().enumerate() {
                let step = if shape.is_atomic() { Ok(None) } else { shape.step(item).map(Some) };
                match step {
                    // As in structured-merge-diff, the rest of this list is not checked.
                    Err(problem) => return errors.push(at(path, format!("element {i}: {problem}"))),
                    Ok(step) => {
                        if let Some(step) = &step
                            && !seen.insert(step.clone())
                            && duplicates == Duplicates::Refused
                        {
                            errors.push(at(path, format!("duplicate entries for key {step}")));
                        }
                        path.push(step.unwrap_or_else(|| Step::index(i)));
                        visit(item, shape.item(), duplicates, path, errors);
                        path.pop();
                    }
                }
            }
        }
        Shape::Map(shape) => {
            let map = match value {
                Value::Object(map) => map,
                Value::Null => return,
                other => return errors.push(at(path, format!("expected map, got {}", described(other)))),
            };
            for (name, entry) in map {
                path.push(Step::field(name));
                visit(entry, shape.field(name), duplicates, path, errors);
                path.pop();
            }
        }
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        _ => "<nil>",
    }
}

/// Formats a value as Go's `%v` does.
fn described(value: &Value) -> String {
    format!("&{{{}}}", go_value(value))
}

/// Formats a value as Go's `%#v` does.
fn described_exactly(value: &Value) -> String {
    format!("&value.valueUnstructured{{Value:{}}}", go_syntax(value))
}

fn go_value(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_string(),
        Value::String(text) => text.clone(),
        Value::Number(number) => go_number(number),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(go_value).collect())),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|it| it.0);
            format!("map[{}]", joined(entries.into_iter().map(|(key, it)| format!("{key}:{}", go_value(it))).collect()))
        }
        other => other.to_string(),
    }
}

fn go_syntax(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Null => "interface {}(nil)".to_string(),
        Value::String(text) => go_quote(text),
        Value::Number(number) => go_number(number),
        Value::Array(items) => format!("[]interface {{}}{{{}}}", joined(items.iter().map(go_syntax).collect())),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|it| it.0);
            let entries = entries.into_iter().map(|(key, it)| format!("{}:{}", go_quote(key), go_syntax(it))).collect();
            format!("map[string]interface {{}}{{{}}}", joined(entries))
        }
        other => other.to_string(),
    }
}
