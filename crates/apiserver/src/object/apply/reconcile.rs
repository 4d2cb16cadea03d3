//! Adapts recorded ownership to a changed schema: a list or map that is now one field may have been many when it was recorded. In
//! the opposite direction nothing is done, as in structured-merge-diff: the owner of the whole keeps it.

use super::set::FieldSet;
use super::types::{Shape, Ty};
use serde_json::Value;

/// Returns the set as this schema would have recorded it.
pub(super) fn reconcile(set: &FieldSet, ty: Ty<'_>) -> FieldSet {
    set.map_entries(|step, is_member, below| {
        let child = match (ty.shape(&Value::Null), step.field_name()) {
            (Shape::Map(map), Some(name)) => map.field(name),
            (Shape::List(list), None) => list.item(),
            _ => return (is_member, below.clone()),
        };
        let is_whole = is_member && below.is_empty();
        let is_one_field = match child.shape(&Value::Null) {
            Shape::List(list) => list.is_atomic() && !is_whole,
            // The shape of values outside the schema depends on the value.
            Shape::Map(map) => matches!(child, Ty::Node { .. }) && map.is_atomic() && !below.is_empty(),
            Shape::Scalar(_) => false,
        };
        if is_one_field { (true, FieldSet::EMPTY) } else { (is_member, reconcile(below, child)) }
    })
}
