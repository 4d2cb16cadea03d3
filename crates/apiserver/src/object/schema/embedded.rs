//! Embedded resources (`x-kubernetes-embedded-resource`): objects inside objects have a type and metadata of their own.

use super::Node;
use super::path::Path;
use crate::object::field_error::{Errors, FieldError};
use crate::object::meta_validate::{coerce_metadata, names, validate_metadata};
use crate::object::problems::Problems;
use serde_json::{Map, Value};

/// Drops unknown fields from the metadata of an embedded resource; their paths are below `path`. Malformed metadata is left to
/// [`validate`].
pub(super) fn coerce(map: &mut Map<String, Value>, path: &str, found: &mut Problems) {
    let Some(metadata) = map.get_mut("metadata") else { return };
    let mut object = Value::Object(Map::from_iter([("metadata".to_string(), metadata.clone())]));
    if let Ok(unknown) = coerce_metadata(&mut object) {
        *metadata = object["metadata"].take();
        unknown.into_iter().for_each(|it| found.add(|| format!("{path}.{}", it.path)));
    }
}

/// Returns the error if an embedded resource's metadata cannot be read at all.
pub(super) fn unreadable(object: &Value, root: &Node) -> Option<FieldError> {
    let mut first = None;
    let mut check = |map: &Map<String, Value>, path: &Path<'_>| {
        if first.is_none() {
            first = read_metadata(map, path).err().map(|it| *it);
        }
    };
    below(object, root, &Path::ROOT, &mut check);
    first
}

pub(super) fn validate(object: &Value, root: &Node) -> Vec<FieldError> {
    let mut errors = Errors::default();
    below(object, root, &Path::ROOT, &mut |map, path| check(map, path, &mut errors));
    errors.list
}

fn visit(value: &Value, node: &Node, path: &Path<'_>, found: &mut dyn FnMut(&Map<String, Value>, &Path<'_>)) {
    if let (true, Value::Object(map)) = (node.embedded, value) {
        found(map, path);
    }
    below(value, node, path, found);
}

/// Calls `found` with every embedded resource below.
fn below(value: &Value, node: &Node, path: &Path<'_>, found: &mut dyn FnMut(&Map<String, Value>, &Path<'_>)) {
    if !node.has_embedded {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, entry) in map {
                if let Some(child) = node.properties.get(name) {
                    visit(entry, child, &path.field(name), found);
                } else if let Some(child) = &node.additional {
                    visit(entry, child, &path.key(name), found);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for (i, item) in items.iter().enumerate() {
                    visit(item, child, &path.index(i), found);
                }
            }
        }
        _ => {}
    }
}

/// Returns the metadata of an embedded resource in an object of its own.
fn read_metadata(map: &Map<String, Value>, path: &Path<'_>) -> Result<Option<Value>, Box<FieldError>> {
    let Some(metadata) = map.get("metadata") else { return Ok(None) };
    let mut copy = Value::Object(Map::from_iter([("metadata".to_string(), metadata.clone())]));
    match coerce_metadata(&mut copy) {
        Ok(_) => Ok(Some(copy)),
        Err(problem) => {
            Err(Box::new(FieldError::invalid(format!("{path}.metadata"), metadata.clone(), problem.to_string())))
        }
    }
}

fn check(map: &Map<String, Value>, path: &Path<'_>, errors: &mut Errors) {
    if errors.is_full() {
        return;
    }
    for field in ["apiVersion", "kind"] {
        let here = format!("{path}.{field}");
        match map.get(field) {
            None => errors.push(FieldError::required(here, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(here, Value::from(""), "must not be empty"));
            }
            Some(Value::String(text)) if field == "apiVersion" => {
                if text.matches('/').count() > 1 {
                    let detail = format!("unexpected GroupVersion string: {text}");
                    errors.push(FieldError::invalid(here, Value::from(text.as_str()), detail));
                }
            }
            Some(Value::String(text)) => {
                let problems = names::dns1035_label(&text.to_lowercase());
                if !problems.is_empty() {
                    let detail = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
                    errors.push(FieldError::invalid(here, Value::from(text.as_str()), detail));
                }
            }
            Some(other) => errors.push(FieldError::invalid(here, other.clone(), "must be a string")),
        }
    }
    let mut copy = match read_metadata(map, path) {
        Ok(Some(copy)) => copy,
        Ok(None) => return,
        Err(error) => return errors.push(*error),
    };
    let text = |key: &str| map["metadata"][key].as_str().unwrap_or_default();
    let name = text("name");
    let segment = match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        name if name.contains('/') => Some("may not contain '/'"),
        name if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    };
    if let Some(problem) = segment {
        errors.push(FieldError::invalid(format!("{path}.metadata.name"), Value::from(name), problem));
    }
    // The name may be missing, or anything that fits into a path.
    copy["metadata"]["name"] = Value::from("any");
    let more = validate_metadata(&copy, None, !text("namespace").is_empty());
    more.into_iter().for_each(|e| errors.push(FieldError { path: format!("{path}.{}", e.path), ..e }));
}
