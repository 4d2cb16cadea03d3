//! Rules for `metadata`: names, labels, annotations, finalizers, owner references; with Kubernetes' messages.

mod coerce;
pub mod finalizers;
pub mod names;

#[cfg(test)]
mod tests;

use crate::object::field_error::{FieldError, Reason};
use crate::object::go_text::go_quote;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

pub use coerce::{MetadataError, coerce_metadata};

/// Kubernetes' limit on the sum of all keys and values of the annotations.
pub const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;
/// Superfluous controllers of one object that are reported: each report shows all owners.
const MAX_CONTROLLERS: usize = 10;
/// Longest manager name in managedFields and `fieldManager`.
pub const MAX_MANAGER_LENGTH: usize = 128;

/// Checks `metadata` on create (`old` = None) and update. The caller has replaced `generateName` by `name` and run
/// [`coerce_metadata`]. An update must have the resourceVersion that it is based on (filled in by the server where the client may
/// omit it).
pub fn validate_metadata(object: &Value, old: Option<&Value>, namespaced: bool) -> Vec<FieldError> {
    let empty = Map::new();
    let meta = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut errors = Vec::new();
    match old {
        None => on_create(meta, namespaced, &mut errors),
        Some(old) => {
            let old = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
            on_update(meta, old, &mut errors);
        }
    }
    labels(meta.get("labels"), "metadata.labels", &mut errors);
    annotations(meta.get("annotations"), &mut errors);
    owner_references(meta.get("ownerReferences"), &mut errors);
    finalizers(meta, &mut errors);
    managed_fields(meta.get("managedFields"), &mut errors);
    errors
}

fn text<'a>(meta: &'a Map<String, Value>, key: &str) -> &'a str {
    meta.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn on_create(meta: &Map<String, Value>, namespaced: bool, errors: &mut Vec<FieldError>) {
    let base = text(meta, "generateName");
    if !base.is_empty() {
        // A prefix may end in a dash, because more characters follow. Kubernetes does not check the character before it.
        let mut kept = base.chars();
        let probe = match (kept.next_back(), kept.next_back()) {
            (Some('-'), Some(_)) => format!("{}a", kept.as_str()),
            _ => base.to_string(),
        };
        for problem in names::dns1123_subdomain(&probe) {
            errors.push(FieldError::invalid("metadata.generateName", Value::from(base), problem));
        }
    }
    let name = text(meta, "name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    }
    for problem in names::dns1123_subdomain(name).into_iter().filter(|_| !name.is_empty()) {
        errors.push(FieldError::invalid("metadata.name", Value::from(name), problem));
    }
    let namespace = text(meta, "namespace");
    if namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        }
        for problem in names::dns1123_label(namespace).into_iter().filter(|_| !namespace.is_empty()) {
            errors.push(FieldError::invalid("metadata.namespace", Value::from(namespace), problem));
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or_default();
    if generation < 0 {
        errors.push(FieldError::invalid(
            "metadata.generation",
            Value::from(generation),
            "must be greater than or equal to 0",
        ));
    }
}

fn on_update(meta: &Map<String, Value>, old: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    if old.get("deletionTimestamp").is_some_and(|t| !t.is_null()) {
        let had: HashSet<&str> = strings(old.get("finalizers")).into_iter().collect();
        let mut new: Vec<&str> = strings(meta.get("finalizers")).into_iter().filter(|f| !had.contains(*f)).collect();
        new.sort_unstable();
        new.dedup();
        if !new.is_empty() {
            let list: Vec<String> = new.iter().map(|f| go_quote(f)).collect();
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    list.join(", ")
                ),
            ));
        }
    }
    if text(meta, "resourceVersion").is_empty() {
        errors.push(FieldError::invalid(
            "metadata.resourceVersion",
            Value::from(""),
            "must be specified for an update",
        ));
    }
    let generation = |m: &Map<String, Value>| m.get("generation").and_then(Value::as_i64).unwrap_or_default();
    if generation(meta) < generation(old) {
        let value = Value::from(generation(meta));
        errors.push(FieldError::invalid("metadata.generation", value, "must not be decremented"));
    }
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let absent = if matches!(key, "name" | "namespace" | "uid") { json!("") } else { Value::Null };
        let of = |m: &Map<String, Value>| m.get(key).filter(|v| !v.is_null()).cloned().unwrap_or(absent.clone());
        if of(meta) != of(old) {
            errors.push(FieldError::invalid(format!("metadata.{key}"), of(meta), "field is immutable"));
        }
    }
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Checks a map of labels, also in selectors and templates inside objects.
pub fn labels(value: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        for problem in names::label_key(key) {
            errors.push(FieldError::invalid(path, Value::from(key.as_str()), problem));
        }
        let value = value.as_str().unwrap_or_default();
        for problem in names::label_value(value) {
            errors.push(FieldError::invalid(path, Value::from(value), problem));
        }
    }
}

fn annotations(value: Option<&Value>, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        bytes += key.len() + value.as_str().unwrap_or_default().len();
        for problem in names::label_key(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", Value::from(key.as_str()), problem));
        }
    }
    if bytes > MAX_ANNOTATIONS_BYTES {
        errors.push(FieldError::too_long("metadata.annotations", MAX_ANNOTATIONS_BYTES));
    }
}

fn owner_references(value: Option<&Value>, errors: &mut Vec<FieldError>) {
    const PATH: &str = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    let mut further = 0;
    for reference in value.and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
        let version = text("apiVersion").rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            let value = Value::from(text("apiVersion"));
            errors.push(FieldError::invalid(format!("{PATH}.apiVersion"), value, "version must not be empty"));
        }
        for key in ["kind", "name", "uid"] {
            if text(key).is_empty() {
                errors.push(FieldError::invalid(format!("{PATH}.{key}"), Value::from(""), "must not be empty"));
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(PATH, reference.clone(), detail));
        }
        if reference.get("controller").and_then(Value::as_bool) == Some(true) {
            let name = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(_) if further == MAX_CONTROLLERS => {}
                Some(first) => {
                    further += 1;
                    errors.push(FieldError::invalid(
                        PATH,
                        value.cloned().unwrap_or_default(),
                        format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"),
                    ));
                }
                None => controller = Some(name),
            }
        }
    }
}

fn finalizers(meta: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let list = strings(meta.get("finalizers"));
    for finalizer in &list {
        for problem in names::label_key(finalizer) {
            errors.push(FieldError::invalid("metadata.finalizers", Value::from(*finalizer), problem));
        }
    }
    if list.contains(&"orphan") && list.contains(&"foregroundDeletion") {
        errors.push(FieldError::invalid(
            "metadata.finalizers",
            json!(list),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

/// Returns a warning for each newly added finalizer without a domain, as Kubernetes does.
pub fn finalizer_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let of = |o: &Value| -> Vec<String> {
        strings(o.pointer("/metadata/finalizers")).into_iter().map(str::to_string).collect()
    };
    let had: HashSet<String> = old.map(of).unwrap_or_default().into_iter().collect();
    let mut new: Vec<String> = of(object).into_iter().filter(|f| !had.contains(f)).collect();
    new.sort_unstable();
    new.dedup();
    new.into_iter()
        .filter(|f| !f.contains('/') && !matches!(f.as_str(), "orphan" | "foregroundDeletion"))
        .map(|f| {
            format!(
                "metadata.finalizers: {}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers",
                go_quote(&f)
            )
        })
        .collect()
}

fn managed_fields(value: Option<&Value>, errors: &mut Vec<FieldError>) {
    for (i, entry) in value.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = |key: &str| format!("metadata.managedFields[{i}].{key}");
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        if !matches!(text("operation"), "Apply" | "Update") {
            let value = Value::from(text("operation"));
            errors.push(FieldError::invalid(path("operation"), value, "must be `Apply` or `Update`"));
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            let value = Value::from(text("fieldsType"));
            errors.push(FieldError::invalid(path("fieldsType"), value, "must be `FieldsV1`"));
        }
        errors.extend(validate_manager(text("manager"), &path("manager")));
        if text("subresource").len() > 256 {
            errors.push(FieldError::too_long(path("subresource"), 256));
        }
    }
}

/// Checks a field manager's name (also of the `fieldManager` parameter, with that as path).
pub fn validate_manager(manager: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if manager.len() > MAX_MANAGER_LENGTH {
        errors.push(FieldError {
            path: path.to_string(),
            reason: Reason::TooLong,
            value: None,
            detail: format!("may not be more than {MAX_MANAGER_LENGTH} bytes"),
        });
    }
    if manager.chars().any(char::is_control) {
        let detail = "should only contain printable characters";
        errors.push(FieldError::invalid(path, Value::from(manager), detail));
    }
    errors
}

/// Returns `generateName` with five random characters from Kubernetes' alphabet: no vowels and no digits that look like letters.
/// `random` may be any bytes.
pub fn generate_name(base: &str, random: [u8; 5]) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut end = base.len().min(names::LABEL_MAX - 5);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let suffix = random.iter().map(|b| ALPHABET[usize::from(*b) % ALPHABET.len()] as char);
    base[..end].chars().chain(suffix).collect()
}
