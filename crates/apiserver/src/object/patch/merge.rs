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
    for (key, mut value) in patch {
        if value.is_null() {
            map.shift_remove(&key);
            continue;
        }
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
