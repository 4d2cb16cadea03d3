//! Turns objects into sets of fields: all fields of one object, or the differences between two. Both sets are built from the
//! leaves up, so that equal parts cost nothing.

use super::path::Step;
use super::set::{Entry, FieldSet};
use super::types::{ListShape, MapShape, Shape, Ty};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const LEAF: Entry = Entry { member: true, below: FieldSet::EMPTY };

/// Returns the fields that applying this object claims: leaves, list items, entries of maps, and empty or null values; not the
/// structs around them.
pub(super) fn fields_of(object: &Value, ty: Ty<'_>) -> FieldSet {
    claimed(object, ty).below
}

fn claimed(value: &Value, ty: Ty<'_>) -> Entry {
    let mut below = FieldSet::EMPTY;
    match (ty.shape(value), value) {
        (Shape::Scalar(_), _) => return LEAF,
        (Shape::List(shape), _) if shape.is_atomic() => return LEAF,
        (Shape::Map(shape), _) if shape.is_atomic() => return LEAF,
        (Shape::List(shape), Value::Array(items)) => {
            for (step, items) in grouped(shape, items) {
                // Items that occur twice cannot be distinguished: only their presence is owned.
                let below_item = match items.as_slice() {
                    [item] => claimed(item, shape.item()).below,
                    _ => FieldSet::EMPTY,
                };
                below.put(step, Entry { member: true, below: below_item });
            }
        }
        (Shape::Map(shape), Value::Object(map)) => {
            for (name, value) in map {
                let mut entry = claimed(value, shape.field(name));
                let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                entry.member |= is_empty || shape.declared(name).is_none();
                below.put(Step::field(name), entry);
            }
        }
        _ => {}
    }
    Entry { member: false, below }
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

/// The differences between two objects.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Comparison {
    /// Returns the comparison without these fields and everything below them.
    pub(super) fn without(mut self, ignored: &FieldSet) -> Comparison {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.remove_recursively(ignored);
        }
        self
    }
}

pub(super) fn compare(old: &Value, new: &Value, ty: Ty<'_>) -> Comparison {
    let difference = differ(Some(old), Some(new), ty);
    Comparison { added: difference.added.below, modified: difference.modified.below, removed: difference.removed.below }
}

/// The differences at and below one path.
#[derive(Default)]
struct Difference {
    added: Entry,
    modified: Entry,
    removed: Entry,
}

impl Difference {
    fn put(&mut self, step: Step, child: Difference) {
        for (mine, theirs) in
            [(&mut self.added, child.added), (&mut self.modified, child.modified), (&mut self.removed, child.removed)]
        {
            if !theirs.is_empty() {
                mine.below.put(step.clone(), theirs);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

fn differ(old: Option<&Value>, new: Option<&Value>, ty: Ty<'_>) -> Difference {
    let mut out = Difference::default();
    if old == new {
        return out;
    }
    let (old_shape, new_shape) = (old.map(|v| ty.shape(v)), new.map(|v| ty.shape(v)));
    let is_leaf = match (old_shape, new_shape) {
        (None, None) => return out,
        (Some(shape), None) | (None, Some(shape)) => by_shape(old, new, shape, &mut out),
        (Some(a), Some(b)) if std::mem::discriminant(&a) == std::mem::discriminant(&b) => {
            by_shape(old, new, b, &mut out)
        }
        (Some(a), Some(b)) => {
            by_shape(old, new, a, &mut out);
            by_shape(old, new, b, &mut out)
        }
    };
    if !is_leaf {
        out.added.member |= old.is_none();
        out.removed.member |= new.is_none();
    }
    out
}

/// Returns whether it was treated as one leaf.
fn by_shape(old: Option<&Value>, new: Option<&Value>, shape: Shape<'_>, out: &mut Difference) -> bool {
    match shape {
        Shape::Scalar(_) => leaf(old, new, out),
        Shape::List(shape) => {
            let (a, b) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            let both_empty = a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty);
            if shape.is_atomic() || both_empty {
                return leaf(old, new, out);
            }
            lists(a.map_or(&[], Vec::as_slice), b.map_or(&[], Vec::as_slice), shape, out);
            false
        }
        Shape::Map(shape) => {
            let (a, b) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let both_empty = a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty);
            if shape.is_atomic() || both_empty {
                return leaf(old, new, out);
            }
            maps(a, b, shape, out);
            false
        }
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>, out: &mut Difference) -> bool {
    match (old, new) {
        (None, _) => out.added.member = true,
        (_, None) => out.removed.member = true,
        (Some(old), Some(new)) => out.modified.member |= old != new,
    }
    true
}

fn lists(old: &[Value], new: &[Value], shape: ListShape<'_>, out: &mut Difference) {
    let (old, new) = (grouped(shape, old), grouped(shape, new));
    let steps: BTreeSet<&Step> = old.keys().chain(new.keys()).collect();
    for step in steps {
        let a = old.get(step).map_or(&[][..], Vec::as_slice);
        let b = new.get(step).map_or(&[][..], Vec::as_slice);
        let child = match (a, b) {
            ([] | [_], [] | [_]) => differ(a.first().copied(), b.first().copied(), shape.item()),
            // Duplicates are compared as a group.
            (a, b) if a == b => continue,
            ([], _) => Difference { added: LEAF, ..Difference::default() },
            (_, []) => Difference { removed: LEAF, ..Difference::default() },
            _ => Difference { modified: LEAF, ..Difference::default() },
        };
        out.put(step.clone(), child);
    }
}

fn maps(old: Option<&Map<String, Value>>, new: Option<&Map<String, Value>>, shape: MapShape<'_>, out: &mut Difference) {
    let mut field = |name: &String, a: Option<&Value>, b: Option<&Value>| {
        let child = differ(a, b, shape.field(name));
        if !child.is_empty() {
            out.put(Step::field(name), child);
        }
    };
    for (name, value) in old.into_iter().flatten() {
        field(name, Some(value), new.and_then(|m| m.get(name)));
    }
    for (name, value) in new.into_iter().flatten() {
        if old.is_none_or(|m| !m.contains_key(name)) {
            field(name, None, Some(value));
        }
    }
}
