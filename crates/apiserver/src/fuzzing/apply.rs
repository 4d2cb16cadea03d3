//! Server-side apply among other writes. Each line is one write of `spec`: `{"by": "one", "apply": {…}, "force": true}`, `{"by": "two",
//! "update": {…}}`, or of `metadata.managedFields`: `{"by": "three", "managed": […]}`. They go the way that the API takes.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::http::request::metadata;
use crate::object::apply::{ApplyError, FieldSet, Writer, server_side_apply, track_update};
use crate::object::schema::Model;
use crate::object::schema::decode::{decode_strict, is_too_deep};

/// More writes than these find nothing that fewer do not.
const MOST_WRITES: usize = 8;

/// Applies of one configuration, the last of which changes nothing.
const SETTLES_WITHIN: usize = 4;

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let item = json!({"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "port": {"type": "integer", "default": 80}, "v": {"type": "string"},
    }});
    Model::compile(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "string"}, "n": {"type": "integer"}, "null": {"type": "string", "nullable": true},
        "struct": {"type": "object", "properties": {"x": {"type": "string"}, "y": {"type": "string", "default": "d"}}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "atomic": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"], "items": item},
        "any": {"x-kubernetes-int-or-string": true},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}}))
    .expect("the schema")
});

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: "", api_version: "g/v1", has_status: false, now: "2026-01-01T00:00:00Z" }
}

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "o"}, "spec": spec})
}

pub(super) fn apply(data: &[u8]) {
    let mut live: Option<Value> = None;
    for line in data.split(|byte| *byte == b'\n').take(MOST_WRITES) {
        let Ok((write, _)) = decode_strict(line) else { return };
        let by = write.get("by").and_then(Value::as_str).unwrap_or("one");
        let by = if by.is_empty() { "one" } else { by };
        let written = if let Some(spec) = write.get("apply") {
            applied(live.as_ref(), spec, by, write.get("force") == Some(&true.into()))
        } else if let Some(spec) = write.get("update") {
            updated(live.as_ref(), object(spec), by)
        } else if let (Some(managed), Some(live)) = (write.get("managed"), &live) {
            let mut new = live.clone();
            new["metadata"]["managedFields"] = managed.clone();
            updated(Some(live), new, by)
        } else {
            return;
        };
        if written.is_some() {
            live = written;
        }
    }
}

/// Prepares an object as the API does before it is stored; `None` if it is refused.
fn admitted(mut object: Value, old: Option<&Value>, is_applied: bool) -> Option<Value> {
    metadata::admit(&mut object).ok()?;
    MODEL.prune(&mut object);
    if is_applied {
        MODEL.default_applied(&mut object)
    } else {
        MODEL.default(&mut object)
    }
    MODEL.validate(&object, old).is_empty().then_some(object)
}

fn applied(live: Option<&Value>, spec: &Value, by: &str, force: bool) -> Option<Value> {
    let wanted = object(spec);
    let merged = match server_side_apply(&MODEL, live, &wanted, force, &writer(by)) {
        Ok(merged) => merged,
        Err(ApplyError::Conflicts(conflicts)) => {
            assert!(!force && live.is_some() && !conflicts.is_empty(), "who forces has no conflicts");
            let own = format!("{:?}", by);
            let causes = ApplyError::Conflicts(conflicts).causes();
            for cause in causes.as_array().into_iter().flatten() {
                let message = cause["message"].as_str().unwrap_or_default();
                assert!(message != format!("conflict with {own}"), "a conflict with itself: {message}");
            }
            return None;
        }
        Err(other) => {
            assert!(!other.to_string().is_empty());
            return None;
        }
    };
    if !has_null(spec) {
        let (found, all) = (without_empty(&merged["spec"]), without_empty(spec));
        assert!(contains(&found, &all), "{spec} is not in {}", merged["spec"]);
        let is_own = |entry: &Value| entry["manager"] == by && entry["operation"] == "Apply";
        let entries = merged.pointer("/metadata/managedFields").and_then(Value::as_array);
        let is_owned = entries.is_some_and(|it| it.iter().any(is_own));
        assert!(is_owned || all == json!({}), "{by} does not own what it applied: {merged}");
    }
    let stored = admitted(merged, live, true)?;
    managed_is_sound(&stored);
    // What an apply leaves empty goes and comes back with the next one, and who owns nothing but empties has no entry; after that
    // nothing changes any more.
    let mut last = stored.clone();
    for _ in 0..SETTLES_WITHIN {
        let Some(next) = applied_again(&last, &wanted, by, force) else {
            // A null where none may be: the first time it only took the field away.
            assert!(has_null(spec), "applied again it is invalid: {wanted} to {last}");
            return Some(stored);
        };
        assert_eq!(without_empty(&next["spec"]), without_empty(&stored["spec"]), "applied again: {wanted}");
        if next == last {
            return Some(stored);
        }
        last = next;
    }
    panic!("applied {SETTLES_WITHIN} times more it still changes something: {wanted} to {stored}");
}

fn applied_again(live: &Value, wanted: &Value, by: &str, force: bool) -> Option<Value> {
    let again = server_side_apply(&MODEL, Some(live), wanted, force, &writer(by))
        .unwrap_or_else(|e| panic!("applied again: {e}; {wanted} to {live}"));
    admitted(again, Some(live), true)
}

/// Whether something empty stays, goes or is null until it is defaulted is not looked at.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(key, entry)| (key.clone(), without_empty(entry)));
            let is_empty = |it: &Value| it.is_null() || it == &json!({}) || it == &json!([]);
            Value::Object(entries.filter(|(_, entry)| !is_empty(entry)).collect())
        }
        Value::Null => json!({}),
        other => other.clone(),
    }
}

fn updated(live: Option<&Value>, new: Value, by: &str) -> Option<Value> {
    let mut new = admitted(new, live, false)?;
    let spec = new["spec"].clone();
    track_update(&MODEL, live, &mut new, &writer(by));
    assert_eq!(new["spec"], spec, "tracking changes nothing but managedFields");
    managed_is_sound(&new);
    let mut again = new.clone();
    track_update(&MODEL, Some(&new), &mut again, &writer(by));
    assert_eq!(again, new, "who changes nothing comes to own nothing more");
    Some(new)
}

fn managed_is_sound(object: &Value) {
    for entry in object.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten() {
        let fields = &entry["fieldsV1"];
        let set = FieldSet::from_fields_v1(fields).unwrap_or_else(|| panic!("cannot be read back: {fields}"));
        assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()), Some(set), "{fields}");
    }
    assert!(serde_json::from_str::<Value>(&object.to_string()).is_ok(), "stored and never read again");
    assert!(!is_too_deep(&object["spec"]));
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(map) => map.values().any(has_null),
        _ => false,
    }
}

/// All of the applied values stand in the result.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|it| contains(it, wanted)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            wanted.iter().all(|it| found.iter().any(|found| contains(found, it)))
        }
        (found, wanted) => found == wanted,
    }
}
