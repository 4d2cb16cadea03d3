//! Merge patch.

use serde_json::Value;

pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let Some(map) = target.as_object_mut() else {
        let mut patch = Value::Object(patch);
        drop_nulls(&mut patch);
        *target = patch;
        return;
    };
    // In one pass, and none where nothing goes: taking an entry out of an ordered map moves all behind it.
    if patch.values().any(Value::is_null) {
        map.retain(|key, _| !patch.get(key).is_some_and(Value::is_null));
    }
    for (key, mut value) in patch.into_iter().filter(|(_, value)| !value.is_null()) {
        match map.get_mut(&key) {
            Some(current @ Value::Object(_)) => merge(current, value),
            Some(current) => {
                drop_nulls(&mut value);
                *current = value;
            }
            None => {
                drop_nulls(&mut value);
                map.insert(key, value);
            }
        }
    }
}

/// Removes nulls from a new value, also inside objects of lists. Nulls that are items of a list are kept.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, entry| !entry.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
