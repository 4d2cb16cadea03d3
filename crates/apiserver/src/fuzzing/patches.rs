//! JSON patch and merge patch. First line: the object; what follows: the body of the patch.

use serde_json::{Map, Value};

use super::{first_line, object};
use crate::object::patch::{MAX_COPIED_BYTES, PatchError, apply_json_patch, apply_merge_patch};
use crate::object::schema::decode::{decode_strict, is_too_deep, normalise_numbers};

pub(super) fn json_patch(data: &[u8]) {
    let (first, body) = first_line(data);
    let Some(object) = object(first) else { return };
    let patched = apply_json_patch(&object, body);
    if let Ok(patched) = &patched {
        assert!(!is_too_deep(patched), "the result can be stored and never be read again");
        let most = 8 * (first.len() + body.len()) + 2 * MAX_COPIED_BYTES;
        assert!(patched.to_string().len() <= most, "a small patch made a large object");
    }
    let Ok((Value::Array(operations), _)) = decode_strict(body) else {
        assert!(!matches!(patched, Err(PatchError::Unprocessable(_))), "an invalid patch applies to no object");
        return;
    };
    // What is refused or counted as a whole is not one by one, and the other implementation counts nothing.
    match &patched {
        Ok(_) => {}
        Err(PatchError::Unprocessable(why)) if !is_limit(why) => {}
        Err(_) => return,
    }
    one_by_one(&object, &operations, &patched);
    as_in_the_rfc(&object, &operations, &patched);
}

/// A patch is its operations, one after the other: all of them, or none.
fn one_by_one(object: &Value, operations: &[Value], patched: &Result<Value, PatchError>) {
    let single = |doc: Value, operation: &Value| {
        apply_json_patch(&doc, Value::Array(vec![operation.clone()]).to_string().as_bytes())
    };
    let step_by_step = operations.iter().try_fold(object.clone(), single);
    match (patched, step_by_step) {
        (Ok(all), Ok(each)) => assert_eq!(*all, each),
        (Ok(all), Err(error)) => panic!("together: {all}; one by one: {error:?}"),
        (Err(error), Ok(_)) => panic!("only together: {error:?}"),
        (Err(_), Err(_)) => {}
    }
}

fn is_limit(why: &str) -> bool {
    why.contains("exceeding the limit") || why.contains("nested deeper")
}

/// The demands of RFC 6902, judged by another implementation. Kubernetes' library takes more than the RFC, and has no pointer to the
/// whole document.
fn as_in_the_rfc(object: &Value, operations: &[Value], patched: &Result<Value, PatchError>) {
    let Ok(patch) = serde_json::from_value::<json_patch::Patch>(Value::Array(operations.to_vec())) else { return };
    let has_root = operations.iter().any(|it| ["path", "from"].iter().any(|key| it.get(key) == Some(&"".into())));
    let mut expected = object.clone();
    // Without its rolling back, which panics.
    if has_root || json_patch::patch_unsafe(&mut expected, &patch).is_err() {
        return;
    }
    normalise_numbers(&mut expected);
    match patched {
        Ok(patched) => assert_eq!(*patched, expected),
        Err(error) => panic!("the RFC allows it: {error:?}"),
    }
}

pub(super) fn merge_patch(data: &[u8]) {
    let (first, body) = first_line(data);
    let Some(object) = object(first) else { return };
    let Ok(patched) = apply_merge_patch(&object, body) else { return };
    let Ok((Value::Object(patch), _)) = decode_strict(body) else { panic!("a merge patch is an object") };
    assert!(!is_too_deep(&patched), "the result can be stored and never be read again");
    merged(&object, &patched, &patch);
    if !has_nulls_in_lists(&patch) {
        let mut expected = object.clone();
        json_patch::merge(&mut expected, &Value::Object(patch.clone()));
        assert_eq!(patched, expected, "RFC 7386, by another implementation");
        assert_eq!(apply_merge_patch(&patched, body), Ok(patched.clone()), "once more changes nothing");
    }
    assert_eq!(apply_merge_patch(&object, b"{}"), Ok(object.clone()), "an empty patch changes nothing");
}

/// Null removes, an object merges, anything else replaces; unnamed fields stay as they are.
fn merged(before: &Value, after: &Value, patch: &Map<String, Value>) {
    let before = before.as_object();
    let Some(after) = after.as_object() else { panic!("an object makes an object") };
    for (key, entry) in after {
        if !patch.contains_key(key) {
            assert_eq!(before.and_then(|it| it.get(key)), Some(entry), "{key} is not in the patch");
        }
    }
    for key in before.into_iter().flat_map(Map::keys) {
        assert!(after.contains_key(key) || patch.get(key).is_some_and(Value::is_null), "{key} is missing");
    }
    for (key, entry) in patch {
        match entry {
            Value::Null => assert!(!after.contains_key(key), "{key} is to be removed"),
            Value::Object(inner) => {
                merged(before.and_then(|it| it.get(key)).unwrap_or(&Value::Null), &after[key], inner);
            }
            Value::Array(_) => assert!(after[key].is_array()),
            scalar => assert_eq!(after[key], *scalar),
        }
    }
}

/// The differences of Kubernetes' library from the RFC: it drops nulls from objects in new lists.
fn has_nulls_in_lists(patch: &Map<String, Value>) -> bool {
    fn any_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.iter().any(any_null),
            Value::Object(map) => map.values().any(any_null),
            _ => false,
        }
    }
    patch.values().any(|entry| match entry {
        Value::Array(_) => any_null(entry),
        Value::Object(inner) => has_nulls_in_lists(inner),
        _ => false,
    })
}
