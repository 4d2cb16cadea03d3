//! The operations of a JSON patch.

use crate::object::go_text::go_json;
use crate::object::schema::decode::{MAX_DEPTH, depth, is_too_deep};
use serde_json::{Map, Value};

/// Checks that an operation has the members it needs.
pub(super) fn check(operation: &Value) -> Result<(), String> {
    let wrong = |problem: &str| Err(format!("invalid operation {}: {problem}", go_json(operation)));
    let has_text = |key: &str| operation.get(key).is_some_and(Value::is_string);
    match operation.get("op").and_then(Value::as_str).unwrap_or("unknown") {
        "add" | "replace" if operation.get("value").is_none() => {
            wrong("failed to decode 'value': operation, missing value field: missing value")
        }
        "move" | "copy" if !has_text("from") => {
            wrong("failed to decode 'from': operation, missing from field: missing value")
        }
        "add" | "replace" | "move" | "copy" | "remove" | "test" if !has_text("path") => {
            wrong("failed to decode 'path': operation missing path field: missing value")
        }
        "add" | "replace" | "move" | "copy" | "remove" | "test" => Ok(()),
        _ => wrong("unsupported operation"),
    }
}

/// The estimated nesting above which the document's real nesting is measured. Lower makes long patches slow; higher costs stack,
/// because everything that walks a value is recursive.
const LOOSE_DEPTH: usize = 400;

/// A document that is being patched.
pub(super) struct Work {
    doc: Value,
    /// An upper bound of the document's nesting. Operations only add to it, so that the document is rarely measured.
    depth: usize,
    /// Bytes that `copy` has added so far.
    copied: usize,
    /// Entries that operations have moved within their lists and objects so far.
    moved: usize,
}

impl Work {
    pub(super) fn on(object: &Value) -> Self {
        Work { doc: object.clone(), depth: depth(object), copied: 0, moved: 0 }
    }

    /// Returns the patched document.
    pub(super) fn finish(self) -> Result<Value, String> {
        if is_too_deep(&self.doc) { Err(too_deep()) } else { Ok(self.doc) }
    }

    /// Applies an operation; the error says why it does not fit the document.
    pub(super) fn apply(&mut self, operation: &Value) -> Result<(), String> {
        let field = |key: &str| {
            operation
                .get(key)
                .and_then(Value::as_str)
                .ok_or_else(|| format!("operation missing {key} field: missing value"))
        };
        let value = || operation.get("value").cloned().unwrap_or(Value::Null);
        let op = operation.get("op").and_then(Value::as_str).unwrap_or("unknown");
        let doc = &mut self.doc;
        match op {
            "add" => {
                let (path, value) = (field("path")?, value());
                self.depth = self.depth.max(steps(path) + depth(&value));
                let (parent, key) = locate(doc, path).ok_or_else(|| missing("add", path))?;
                add(parent, &key, value, &mut self.moved)
                    .map_err(|e| format!("error in add for path: '{path}': {e}"))?;
            }
            "remove" => {
                let path = field("path")?;
                let (parent, key) = locate(doc, path).ok_or_else(|| missing("remove", path))?;
                remove(parent, &key, &mut self.moved)
                    .map_err(|e| format!("error in remove for path: '{path}': {e}"))?;
            }
            "replace" => {
                let (path, value) = (field("path")?, value());
                self.depth = self.depth.max(steps(path) + depth(&value));
                let target = match path {
                    "" => doc,
                    _ => {
                        let (parent, key) = locate(doc, path).ok_or_else(|| missing("replace", path))?;
                        get_mut(parent, &key).ok_or_else(|| {
                            format!("replace operation does not apply: doc is missing key: {path}: missing value")
                        })?
                    }
                };
                *target = value;
            }
            "move" => {
                let (from, path) = (field("from")?, field("path")?);
                self.depth += steps(path).saturating_sub(steps(from));
                let (parent, key) = locate(doc, from).ok_or_else(|| missing("move", from))?;
                let moved = remove(parent, &key, &mut self.moved)
                    .map_err(|e| format!("error in move for path: '{key}': {e}"))?;
                let (parent, key) = locate(doc, path).ok_or_else(|| missing("move", path))?;
                add(parent, &key, moved, &mut self.moved)
                    .map_err(|e| format!("error in move for path: '{path}': {e}"))?;
            }
            "copy" => {
                let (from, path) = (field("from")?, field("path")?);
                self.depth += steps(path).saturating_sub(steps(from));
                let (parent, key) = locate(doc, from).ok_or_else(|| missing("copy", from))?;
                let source =
                    get_mut(parent, &key).ok_or_else(|| format!("error in copy for from: '{from}': missing value"))?;
                self.copied += size(source);
                if self.copied > MAX_COPIED_BYTES {
                    let copied = self.copied;
                    return Err(format!(
                        "unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED_BYTES}"
                    ));
                }
                let source = source.clone();
                let (parent, key) = locate(doc, path).ok_or_else(|| missing("copy", path))?;
                add(parent, &key, source, &mut self.moved)
                    .map_err(|e| format!("error while adding value during copy: {e}"))?;
            }
            "test" => {
                let (path, value) = (field("path")?, value());
                let (parent, key) = locate(doc, path).ok_or_else(|| missing("test", path))?;
                // Numbers are compared by value: decoding has made `1` and `1.0` equal.
                if *get_mut(parent, &key).unwrap_or(&mut Value::Null) != value {
                    return Err(format!("testing value {path} failed: test failed"));
                }
            }
            other => return Err(format!("Unexpected kind: {other}")),
        }
        if self.moved > MAX_MOVED {
            return Err(format!("the operations move more than {MAX_MOVED} entries of lists and objects"));
        }
        if self.depth > LOOSE_DEPTH {
            self.depth = depth(&self.doc);
            if self.depth > MAX_DEPTH {
                return Err(too_deep());
            }
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("the patched object is nested deeper than {MAX_DEPTH}")
}

/// Returns the number of steps of a path, which is the nesting of a value at that path.
fn steps(path: &str) -> usize {
    path.matches('/').count()
}

/// Returns the approximate length of a value as JSON: the cost of a copy.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(key, entry)| key.len() + size(entry) + 4).sum::<usize>() + 2,
    }
}

fn missing(operation: &str, path: &str) -> String {
    format!("{operation} operation does not apply: doc is missing path: \"{path}\": missing value")
}

/// Returns the container of a path's last step, and that step.
fn locate<'a>(doc: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut steps = path.split('/');
    // The path starts with a slash; Kubernetes ignores any text before it.
    steps.next()?;
    let steps: Vec<String> = steps.map(|s| s.replace("~1", "/").replace("~0", "~")).collect();
    let (last, parents) = steps.split_last()?;
    let mut container = doc;
    for step in parents {
        container = get_mut(container, step)?;
    }
    (container.is_object() || container.is_array()).then_some((container, last.clone()))
}

fn get_mut<'a>(container: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match container {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => {
            let index = index(key, items.len()).ok().filter(|i| *i < items.len())?;
            items.get_mut(index)
        }
        _ => None,
    }
}

/// Parses a position in a list of `length`; negative ones count from the end.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let number: i64 = key.parse().map_err(|_| format!("value was not a proper array index: '{key}'"))?;
    let from_start = if number < 0 { number + length as i64 } else { number };
    usize::try_from(from_start)
        .map_err(|_| format!("Unable to access invalid index: {number}: invalid index referenced"))
}

fn add(container: &mut Value, key: &str, value: Value, moved: &mut usize) -> Result<(), String> {
    match container {
        Value::Object(map) => {
            insert(map, key, value);
            Ok(())
        }
        Value::Array(items) if key == "-" => {
            items.push(value);
            Ok(())
        }
        Value::Array(items) => {
            // The list is one longer afterwards: -1 appends.
            let index = index(key, items.len() + 1)?;
            if index > items.len() {
                return Err(format!("Unable to access invalid index: {key}: invalid index referenced"));
            }
            *moved += items.len() - index;
            items.insert(index, value);
            Ok(())
        }
        _ => Err("missing value".to_string()),
    }
}

fn insert(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_string(), value);
}

fn remove(container: &mut Value, key: &str, moved: &mut usize) -> Result<Value, String> {
    match container {
        Value::Object(map) => {
            *moved += map.len();
            map.shift_remove(key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value"))
        }
        Value::Array(items) => {
            let index = index(key, items.len())?;
            if index >= items.len() {
                return Err(format!("Unable to access invalid index: {key}: invalid index referenced"));
            }
            *moved += items.len() - index;
            Ok(items.remove(index))
        }
        _ => Err("missing value".to_string()),
    }
}

/// Kubernetes' cap on what the `copy` operations of one patch may add: a patch that copies a value into itself doubles it with
/// each operation.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

/// Entries that the operations of one patch may move: taking the first item out of a long list moves all others, so ten thousand
/// operations would be minutes of work. Twenty million are about a second.
pub const MAX_MOVED: usize = 20_000_000;
