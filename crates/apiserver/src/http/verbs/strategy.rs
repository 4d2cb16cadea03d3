//! The server's own changes to an object on create and update: metadata that clients cannot choose, and which endpoint writes
//! `status`. Pure.

use serde_json::{Map, Value, json};

use crate::object::registry::Registered;

/// Metadata that clients cannot set on create.
const SYSTEM_METADATA: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "selfLink",
];
/// Metadata that updates never change.
const KEPT_METADATA: [&str; 3] = ["creationTimestamp", "generation", "resourceVersion"];

/// Returns `metadata`, which is created if missing.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    match metadata {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

/// Returns a string in `metadata`, or an empty one.
pub(crate) fn metadata_text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|it| it.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// Whether `metadata.deletionTimestamp` is set.
pub(crate) fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|it| !it.is_null())
}

/// Whether a deletion can be completed: no finalizers, also none in a namespace's `spec`.
pub(crate) fn is_finalized(registered: &Registered, object: &Value) -> bool {
    let is_empty = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).is_none_or(Vec::is_empty);
    is_empty("/metadata/finalizers") && (!registered.is_namespace() || is_empty("/spec/finalizers"))
}

/// Removes a field of an object.
pub(crate) fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.shift_remove(field);
    }
}

fn set_or_remove(map: &mut Map<String, Value>, field: &str, value: Option<&Value>) {
    match value {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.shift_remove(field);
        }
    }
}

/// Prepares a new object for validation.
pub(crate) fn prepare_create(registered: &Registered, object: &mut Value, uid: &str, now: &str) {
    if registered.kind.subresources.status {
        remove(object, "status");
    }
    let metadata = metadata_mut(object);
    for field in SYSTEM_METADATA {
        metadata.shift_remove(field);
    }
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), now.into());
    if registered.kind.has_generation {
        metadata.insert("generation".into(), json!(1));
    }
    drop_empty(metadata);
    if registered.is_namespace() {
        let name = metadata_text(object, "name").to_owned();
        metadata_mut(object)
            .entry("labels")
            .or_insert_with(|| json!({}))
            .as_object_mut()
            .map(|labels| labels.insert("kubernetes.io/metadata.name".into(), name.into()));
        object["spec"] = json!({"finalizers": ["kubernetes"]});
        object["status"] = json!({"phase": "Active"});
    }
}

/// Prepares the new state of an object for validation.
pub(crate) fn prepare_update(registered: &Registered, object: &mut Value, old: &Value, subresource: &str) {
    let has_status = registered.kind.subresources.status;
    if subresource == "status" {
        let mut merged = old.clone();
        match object.get("status") {
            Some(status) => merged["status"] = status.clone(),
            None => remove(&mut merged, "status"),
        }
        let managed = object.pointer("/metadata/managedFields").cloned();
        set_or_remove(metadata_mut(&mut merged), "managedFields", managed.as_ref());
        *object = merged;
    } else if has_status {
        match old.get("status") {
            Some(status) => object["status"] = status.clone(),
            None => remove(object, "status"),
        }
    }
    let old_metadata = old.get("metadata").and_then(Value::as_object);
    let metadata = metadata_mut(object);
    metadata.shift_remove("selfLink");
    for field in KEPT_METADATA {
        set_or_remove(metadata, field, old_metadata.and_then(|it| it.get(field)));
    }
    // Filled in if missing, and never removed; validation refuses a different value.
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        match old_metadata.and_then(|it| it.get(field)) {
            Some(value) if field != "uid" || !metadata.contains_key(field) => {
                metadata.insert(field.to_owned(), value.clone());
            }
            _ => {}
        }
    }
    drop_empty(metadata);
    if registered.is_namespace() && subresource != "finalize" && subresource != "status" {
        // Only the life-cycle of namespaces changes them, through subresources.
        for field in ["spec", "status"] {
            match old.get(field) {
                Some(value) => object[field] = value.clone(),
                None => remove(object, field),
            }
        }
        if let Some(labels) = metadata_mut(object).entry("labels").or_insert_with(|| json!({})).as_object_mut() {
            let name = old.pointer("/metadata/name").cloned().unwrap_or_default();
            labels.insert("kubernetes.io/metadata.name".into(), name);
        }
    }
    if registered.kind.has_generation && subresource != "status" && differs(object, old, has_status) {
        bump_generation(object);
    }
}

/// Marks an object as being deleted.
pub(crate) fn mark_deleted(registered: &Registered, object: &mut Value, now: &str) {
    let metadata = metadata_mut(object);
    metadata.insert("deletionTimestamp".into(), now.into());
    metadata.insert("deletionGracePeriodSeconds".into(), json!(0));
    if registered.kind.has_generation {
        bump_generation(object);
    }
    if registered.is_namespace() {
        object["status"]["phase"] = json!("Terminating");
    }
}

/// Returns warnings about allowed but questionable values: finalizers without a domain, and those of the kind.
pub(crate) fn warnings(registered: &Registered, object: &Value, old: Option<&Value>) -> Vec<String> {
    const KNOWN: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
    let known = old.and_then(|it| it.pointer("/metadata/finalizers")).and_then(Value::as_array);
    let of_kind = registered.kind.warn.iter().flat_map(|warn| warn(object, old));
    finalizers
        .filter(|it| known.is_none_or(|known| !known.contains(it)))
        .filter_map(Value::as_str)
        .filter(|it| !it.contains('/') && !KNOWN.contains(it))
        .map(|it| {
            format!(
                "metadata.finalizers: {it:?}: prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
            )
        })
        .chain(of_kind)
        .collect()
}

fn bump_generation(object: &mut Value) {
    let metadata = metadata_mut(object);
    let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or_default();
    metadata.insert("generation".into(), json!(generation + 1));
}

/// Whether anything but metadata (and status, if it is a subresource) differs.
fn differs(new: &Value, old: &Value, has_status: bool) -> bool {
    let relevant = |key: &str| key != "metadata" && !(has_status && key == "status");
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new != old };
    let count = |map: &Map<String, Value>| map.keys().filter(|key| relevant(key)).count();
    count(new) != count(old) || new.iter().any(|(key, value)| relevant(key) && old.get(key) != Some(value))
}

/// Drops what typed metadata does not encode: nulls and empty maps, lists and strings.
fn drop_empty(metadata: &mut Map<String, Value>) {
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    });
}
