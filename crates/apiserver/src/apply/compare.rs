//! Objects to sets of fields: all fields of one, the differences of two.

use super::path::Step;
use super::set::FieldSet;
use super::types::{ListShape, MapShape, Shape, Ty};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The fields that applying this object claims: leaves, list items, entries of maps, and empty or null values; not the structs
/// around them.
pub(super) fn fields_of(object: &Value, ty: Ty<'_>) -> FieldSet {
    let mut out = FieldSet::default();
    collect(object, ty, &mut Vec::new(), &mut out);
    out
}

fn collect(value: &Value, ty: Ty<'_>, path: &mut Vec<Step>, out: &mut FieldSet) {
    match (ty.shape(value), value) {
        (Shape::Scalar(_), _) => out.insert(path),
        (Shape::List(shape), _) if shape.is_atomic() => out.insert(path),
        (Shape::Map(shape), _) if shape.is_atomic() => out.insert(path),
        (Shape::List(shape), Value::Array(items)) => {
            for (step, items) in grouped(shape, items) {
                path.push(step);
                // Of an item that occurs twice nobody knows which is which: only its presence is owned.
                if let [item] = items.as_slice() {
                    collect(item, shape.item(), path, out);
                }
                out.insert(path);
                path.pop();
            }
        }
        (Shape::Map(shape), Value::Object(map)) => {
            for (name, entry) in map {
                path.push(Step::field(name));
                collect(entry, shape.field(name), path, out);
                let is_empty = entry.is_null() || entry.as_object().is_some_and(Map::is_empty);
                if is_empty || shape.declared(name).is_none() {
                    out.insert(path);
                }
                path.pop();
            }
        }
        _ => {}
    }
}

fn grouped<'v>(shape: ListShape<'_>, items: &'v [Value]) -> BTreeMap<Step, Vec<&'v Value>> {
    let mut out: BTreeMap<Step, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(step) = shape.step(item) {
            out.entry(step).or_default().push(item);
        }
    }
    out
}

/// What differs between two objects.
#[derive(Debug, Default, Clone)]
pub(super) struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    /// The same without these fields and everything below them.
    pub(super) fn without(&self, ignored: &FieldSet) -> Comparison {
        Comparison {
            added: self.added.recursive_difference(ignored),
            modified: self.modified.recursive_difference(ignored),
            removed: self.removed.recursive_difference(ignored),
        }
    }

    pub(super) fn changed(&self) -> FieldSet {
        self.modified.union(&self.added)
    }
}

pub(super) fn compare(old: &Value, new: &Value, ty: Ty<'_>) -> Comparison {
    let mut out = Comparison::default();
    visit(Some(old), Some(new), ty, &mut Vec::new(), &mut out);
    out
}

fn visit(old: Option<&Value>, new: Option<&Value>, ty: Ty<'_>, path: &mut Vec<Step>, out: &mut Comparison) {
    let (old_shape, new_shape) = (old.map(|v| ty.shape(v)), new.map(|v| ty.shape(v)));
    let leaf = match (old_shape, new_shape) {
        (None, None) => return,
        (Some(shape), None) | (None, Some(shape)) => by_shape(old, new, shape, path, out),
        (Some(a), Some(b)) if same_kind(a, b) => by_shape(old, new, b, path, out),
        (Some(a), Some(b)) => {
            by_shape(old, new, a, path, out);
            by_shape(old, new, b, path, out)
        }
    };
    if !leaf {
        if old.is_none() {
            out.added.insert(path);
        } else if new.is_none() {
            out.removed.insert(path);
        }
    }
}

fn same_kind(a: Shape<'_>, b: Shape<'_>) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

/// Returns whether it was treated as one leaf.
fn by_shape(old: Option<&Value>, new: Option<&Value>, shape: Shape<'_>, path: &mut Vec<Step>, out: &mut Comparison) -> bool {
    match shape {
        Shape::Scalar(_) => leaf(old, new, path, out),
        Shape::List(shape) => {
            let (a, b) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            let both_empty = a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty);
            if shape.is_atomic() || both_empty {
                return leaf(old, new, path, out);
            }
            lists(a.map_or(&[], Vec::as_slice), b.map_or(&[], Vec::as_slice), shape, path, out);
            false
        }
        Shape::Map(shape) => {
            let (a, b) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let both_empty = a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty);
            if shape.is_atomic() || both_empty {
                return leaf(old, new, path, out);
            }
            maps(a, b, shape, path, out);
            false
        }
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>, path: &[Step], out: &mut Comparison) -> bool {
    match (old, new) {
        (None, _) => out.added.insert(path),
        (_, None) => out.removed.insert(path),
        (Some(old), Some(new)) if old != new => out.modified.insert(path),
        _ => {}
    }
    true
}

fn lists(old: &[Value], new: &[Value], shape: ListShape<'_>, path: &mut Vec<Step>, out: &mut Comparison) {
    let (old, new) = (grouped(shape, old), grouped(shape, new));
    let none = Vec::new();
    let steps: std::collections::BTreeSet<&Step> = old.keys().chain(new.keys()).collect();
    for step in steps {
        let (a, b) = (old.get(step).unwrap_or(&none), new.get(step).unwrap_or(&none));
        path.push(step.clone());
        match (a.as_slice(), b.as_slice()) {
            ([] | [_], [] | [_]) => visit(a.first().copied(), b.first().copied(), shape.item(), path, out),
            // Duplicates are compared as one.
            (a, b) if a == b => {}
            ([], _) => out.added.insert(path),
            (_, []) => out.removed.insert(path),
            _ => out.modified.insert(path),
        }
        path.pop();
    }
}

fn maps(
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    shape: MapShape<'_>,
    path: &mut Vec<Step>,
    out: &mut Comparison,
) {
    let mut step = |name: &String, a: Option<&Value>, b: Option<&Value>| {
        path.push(Step::field(name));
        visit(a, b, shape.field(name), path, out);
        path.pop();
    };
    for (name, value) in old.into_iter().flatten() {
        step(name, Some(value), new.and_then(|m| m.get(name)));
    }
    for (name, value) in new.into_iter().flatten() {
        if old.is_none_or(|m| !m.contains_key(name)) {
            step(name, None, Some(value));
        }
    }
}
