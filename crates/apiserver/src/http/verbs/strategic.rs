//! Strategic merge patches, which typed clients send for core kinds (kubectl's apply, edit, label and annotate among them). Lists
//! are replaced, except those that Kubernetes' types mark as merged by key.
//!
//! Directives: `$patch: delete|replace`, `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`, `$retainKeys`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::object::error::ApiError;
use crate::object::go_text::go_json;

/// How a list is merged.
enum ListRule {
    /// Elements are objects with this key.
    ByKey(&'static str),
    /// Elements are values of a set.
    Set,
    /// The new list replaces the old one.
    Replace,
}

/// Returns the rule of a list in the core kinds that are served.
fn list_rule(path: &str) -> ListRule {
    match path {
        "metadata.ownerReferences" => ListRule::ByKey("uid"),
        "metadata.finalizers" => ListRule::Set,
        "status.conditions" => ListRule::ByKey("type"),
        _ => ListRule::Replace,
    }
}

/// Applies a patch (the request's body).
///
/// # Errors
/// 400 if the body is not a patch.
pub(crate) fn apply(object: &Value, body: &[u8]) -> Result<Value, ApiError> {
    let patch: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(ApiError::bad_request("error decoding patch: it is not an object"));
    };
    Ok(Value::Object(merge_maps(object.clone(), patch, "")?))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn merge_maps(
    mut current: Map<String, Value>,
    mut patch: Map<String, Value>,
    path: &str,
) -> Result<Map<String, Value>, ApiError> {
    match patch.shift_remove("$patch").as_ref().and_then(Value::as_str) {
        None => {}
        Some("replace") => return Ok(patch),
        Some("delete") => return Ok(Map::new()),
        Some("merge") => {}
        Some(other) => return Err(ApiError::bad_request(format!("Unknown patch type {other} found in map"))),
    }
    if let Some(Value::Array(kept)) = patch.shift_remove("$retainKeys") {
        let kept: HashSet<&str> = kept.iter().filter_map(Value::as_str).collect();
        current.retain(|key, _| kept.contains(key.as_str()));
    }
    // In one pass, and none where nothing goes: taking an entry out of an ordered map moves all behind it.
    if patch.values().any(Value::is_null) {
        current.retain(|key, _| !patch.get(key).is_some_and(Value::is_null));
    }
    let mut orders = Vec::new();
    for (key, wanted) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let removed: HashSet<String> = wanted.as_array().into_iter().flatten().map(go_json).collect();
            if let Some(list) = current.get_mut(field).and_then(Value::as_array_mut) {
                list.retain(|it| !removed.contains(&go_json(it)));
            }
            continue;
        }
        if let Some(field) = key.strip_prefix("$setElementOrder/") {
            orders.push((field.to_owned(), wanted.as_array().cloned().unwrap_or_default()));
            continue;
        }
        let path = join(path, &key);
        match (current.get_mut(&key), wanted) {
            (_, Value::Null) => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                let merged = merge_maps(std::mem::take(old), new, &path)?;
                current.insert(key, Value::Object(merged));
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let merged = merge_lists(std::mem::take(old), new, &path)?;
                current.insert(key, Value::Array(merged));
            }
            (_, Value::Object(new)) => {
                current.insert(key, Value::Object(merge_maps(Map::new(), new, &path)?));
            }
            (_, Value::Array(new)) => {
                current.insert(key, Value::Array(merge_lists(Vec::new(), new, &path)?));
            }
            (_, new) => {
                current.insert(key, new);
            }
        }
    }
    for (field, order) in orders {
        let rule = list_rule(&join(path, &field));
        if let Some(list) = current.get_mut(&field).and_then(Value::as_array_mut) {
            sort_as(list, &order, &rule);
        }
    }
    Ok(current)
}

/// Returns the text that identifies an element of a merged list.
fn identity(item: &Value, rule: &ListRule) -> Option<String> {
    match rule {
        ListRule::ByKey(key) => item.get(*key).map(go_json),
        ListRule::Set | ListRule::Replace => Some(go_json(item)),
    }
}

fn merge_lists(current: Vec<Value>, patch: Vec<Value>, path: &str) -> Result<Vec<Value>, ApiError> {
    let rule = list_rule(path);
    if matches!(rule, ListRule::Replace) || patch.iter().any(|it| it["$patch"] == "replace") {
        return Ok(patch.into_iter().filter(|it| it.get("$patch").is_none()).collect());
    }
    let mut positions: HashMap<String, usize> = HashMap::new();
    for (position, id) in current.iter().map(|it| identity(it, &rule)).enumerate() {
        if let Some(id) = id {
            positions.entry(id).or_insert(position);
        }
    }
    let mut merged: Vec<Option<Value>> = current.into_iter().map(Some).collect();
    for item in patch {
        let Some(id) = identity(&item, &rule) else {
            return Err(ApiError::bad_request(format!("map in list {path} does not contain its merge key")));
        };
        if item["$patch"] == "delete" {
            if let Some(position) = positions.remove(&id) {
                merged[position] = None;
            }
            continue;
        }
        match (positions.get(&id), item) {
            (Some(&position), Value::Object(new)) => {
                let old = merged[position].take();
                let old = old.and_then(|it| it.as_object().cloned()).unwrap_or_default();
                merged[position] = Some(Value::Object(merge_maps(old, new, path)?));
            }
            (Some(_), _) => {}
            (None, item) => {
                positions.insert(id, merged.len());
                merged.push(Some(item));
            }
        }
    }
    Ok(merged.into_iter().flatten().collect())
}

/// Sorts the elements that `order` names; others follow in their old order.
fn sort_as(list: &mut [Value], order: &[Value], rule: &ListRule) {
    let mut ranks: HashMap<Option<String>, usize> = HashMap::new();
    for (rank, item) in order.iter().enumerate() {
        ranks.entry(identity(item, rule)).or_insert(rank);
    }
    list.sort_by_cached_key(|item| ranks.get(&identity(item, rule)).copied().unwrap_or(order.len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(object: Value, patch: Value) -> Value {
        apply(&object, patch.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn maps_merge_and_lists_are_replaced() {
        let object = json!({"data": {"a": "1", "b": "2"}, "items": [1, 2]});
        let patch = json!({"data": {"a": null, "c": "3"}, "items": [3]});
        assert_eq!(patched(object, patch), json!({"data": {"b": "2", "c": "3"}, "items": [3]}));
    }

    #[test]
    fn merged_lists_follow_their_keys_and_directives() {
        let object = json!({"metadata": {
            "finalizers": ["a", "b"],
            "ownerReferences": [{"uid": "1", "name": "x"}, {"uid": "2", "name": "y"}],
        }});
        let patch = json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["a"],
            "$setElementOrder/finalizers": ["c", "b"],
            "finalizers": ["c"],
            "ownerReferences": [{"uid": "1", "name": "z"}, {"uid": "2", "$patch": "delete"}],
        }});
        let expected = json!({"metadata": {"finalizers": ["c", "b"], "ownerReferences": [{"uid": "1", "name": "z"}]}});
        assert_eq!(patched(object, patch), expected);
    }

    #[test]
    fn directives_replace_and_delete_maps() {
        let object = json!({"data": {"a": "1", "b": "2"}});
        assert_eq!(
            patched(object.clone(), json!({"data": {"$patch": "replace", "c": "3"}})),
            json!({"data": {"c": "3"}})
        );
        assert_eq!(patched(object.clone(), json!({"data": {"$patch": "delete"}})), json!({"data": {}}));
        assert_eq!(patched(object.clone(), json!({"data": {"$retainKeys": ["b"]}})), json!({"data": {"b": "2"}}));
        assert!(apply(&object, b"{\"data\": {\"$patch\": \"frob\"}}").is_err());
        assert!(apply(&object, b"[]").is_err());
    }
}
