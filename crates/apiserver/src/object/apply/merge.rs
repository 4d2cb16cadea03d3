//! Merges an applied object into the live one, and removes fields from an object.

use super::path::Step;
use super::set::FieldSet;
use super::types::{ListShape, MapShape, Shape, Ty};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Returns the live object with the applied one merged into it.
pub(super) fn merge(live: &Value, applied: &Value, ty: Ty<'_>) -> Value {
    both(Some(live), Some(applied), ty).unwrap_or(Value::Null)
}

fn both(live: Option<&Value>, applied: Option<&Value>, ty: Ty<'_>) -> Option<Value> {
    // Where the schema leaves the shape open, the applied value decides.
    match ty.shape(applied.or(live)?) {
        Shape::Scalar(_) => keep_applied(live, applied),
        Shape::List(shape) => {
            let (a, b) = (live.and_then(Value::as_array), applied.and_then(Value::as_array));
            if shape.is_atomic() || (a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty)) {
                return keep_applied(live, applied);
            }
            lists(a.map_or(&[], Vec::as_slice), b.map_or(&[], Vec::as_slice), shape)
        }
        Shape::Map(shape) => {
            let (a, b) = (live.and_then(Value::as_object), applied.and_then(Value::as_object));
            if shape.is_atomic() || (a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty)) {
                return keep_applied(live, applied);
            }
            maps(a, b, shape)
        }
    }
}

fn keep_applied(live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    applied.or(live).cloned()
}

fn maps(live: Option<&Map<String, Value>>, applied: Option<&Map<String, Value>>, shape: MapShape<'_>) -> Option<Value> {
    let mut out = Map::new();
    let mut put = |name: &String, a: Option<&Value>, b: Option<&Value>| {
        if let Some(value) = both(a, b, shape.field(name)) {
            out.insert(name.clone(), value);
        }
    };
    for (name, value) in live.into_iter().flatten() {
        put(name, Some(value), applied.and_then(|m| m.get(name)));
    }
    for (name, value) in applied.into_iter().flatten() {
        if live.is_none_or(|m| !m.contains_key(name)) {
            put(name, None, Some(value));
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

struct Indexed<'v> {
    order: Vec<(Step, &'v Value)>,
    /// One value per step; none for a step that occurs twice.
    by_step: BTreeMap<Step, Option<&'v Value>>,
}

fn index<'v>(items: &'v [Value], shape: ListShape<'_>) -> Indexed<'v> {
    let order: Vec<(Step, &Value)> = items.iter().filter_map(|item| Some((shape.step(item).ok()?, item))).collect();
    let mut by_step = BTreeMap::new();
    for (step, item) in &order {
        by_step.entry(step.clone()).and_modify(|v| *v = None).or_insert(Some(*item));
    }
    Indexed { order, by_step }
}

/// Merges two lists. Items keep the order of the applied list; live items that are not applied keep their position between those
/// that are. Both lists are walked at once: `wanted` is the next item that both have, in the applied order.
fn lists(live: &[Value], applied: &[Value], shape: ListShape<'_>) -> Option<Value> {
    let (live, applied) = (index(live, shape), index(applied, shape));
    let mut shared: VecDeque<&Step> =
        applied.order.iter().map(|(step, _)| step).filter(|step| live.by_step.contains_key(*step)).collect();
    let mut wanted = shared.pop_front();
    let mut done: BTreeSet<&Step> = BTreeSet::new();
    let mut out = Vec::new();
    let (mut l, mut a) = (0, 0);
    while l < live.order.len() || a < applied.order.len() {
        if let (Some((mine, _)), Some((theirs, _))) = (live.order.get(l), applied.order.get(a)) {
            if mine == theirs {
                done.insert(mine);
                out.extend(both(live.by_step[mine], applied.by_step[mine], shape.item()));
                l += 1;
                a += 1;
                wanted = shared.pop_front();
                continue;
            }
            if applied.by_step.contains_key(mine) && wanted.is_some_and(|w| w != mine) {
                l += 1;
                continue;
            }
        }
        if let Some((mine, item)) = live.order.get(l) {
            if !applied.by_step.contains_key(mine) {
                out.extend(both(Some(item), None, shape.item()));
                l += 1;
                continue;
            } else if done.contains(mine) {
                l += 1;
            }
        }
        if let Some((theirs, _)) = applied.order.get(a) {
            done.insert(theirs);
            let mine = live.by_step.get(theirs).copied().flatten();
            out.extend(both(mine, applied.by_step[theirs], shape.item()));
            a += 1;
            if wanted == Some(theirs) {
                wanted = shared.pop_front();
            }
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}

/// Returns the object without these fields. A value that becomes empty is null.
pub(super) fn remove(value: &Value, set: &FieldSet, ty: Ty<'_>) -> Value {
    match (ty.shape(value), value) {
        (Shape::Scalar(_), value) => value.clone(),
        (Shape::List(shape), Value::Array(items)) if !shape.is_atomic() => {
            let mut out = Vec::new();
            for item in items {
                match shape.step(item) {
                    Ok(step) if set.has(&step) => {}
                    Ok(step) => out.push(match set.below(&step) {
                        Some(below) => remove(item, below, shape.item()),
                        None => item.clone(),
                    }),
                    Err(_) => out.push(item.clone()),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        (Shape::Map(shape), Value::Object(map)) if !shape.is_atomic() => {
            let mut out = Map::new();
            for (name, entry) in map {
                let step = Step::field(name);
                if set.has(&step) {
                    continue;
                }
                let entry = match set.below(&step) {
                    Some(below) => remove(entry, below, shape.field(name)),
                    None => entry.clone(),
                };
                out.insert(name.clone(), entry);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        _ => Value::Null,
    }
}

/// Returns the set with the structs around its fields added, because a struct is removed with its last field.
pub(super) fn with_structs(set: &FieldSet, ty: Option<Ty<'_>>) -> FieldSet {
    set.map_entries(|step, member, below| {
        let map = ty.and_then(|ty| match ty.shape(&Value::Null) {
            Shape::Map(shape) => Some(shape),
            _ => None,
        });
        let list = ty.and_then(|ty| match ty.shape(&Value::Null) {
            Shape::List(shape) => Some(shape),
            _ => None,
        });
        let (named, child) = match (step.field_name(), map, list) {
            (Some(name), Some(map), _) => (map.declared(name).is_some(), Some(map.field(name))),
            (_, _, Some(list)) if step.is_key() => (false, Some(list.item())),
            _ => (false, None),
        };
        (member || (named && !below.is_empty()), with_structs(below, child))
    })
}
