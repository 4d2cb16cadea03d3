//! The weights of values: how much work it is to copy, compare or search them.

use kube_cel::cel::Value;
use kube_cel::cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString};
use kube_cel::cel::common::value::Val;
use kube_cel::cel::objects::{Key, OptionalValue};

/// An amount of work, in tenths of a step. As in Kubernetes, a byte of a string is a tenth; an entry of a list or map, of which the
/// library makes copies where cel-go makes none, is two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight(u64);

/// The weight of an entry besides what it holds.
const ENTRY: u64 = 2;

impl Weight {
    /// No work.
    pub(super) const NONE: Weight = Weight(0);

    pub(super) fn of_steps(steps: u64) -> Self {
        Weight(steps.saturating_mul(10))
    }

    pub(super) fn of_bytes(bytes: usize) -> Self {
        Weight(bytes as u64)
    }

    pub(super) fn minus(self, other: Weight) -> Self {
        Weight(self.0.saturating_sub(other.0))
    }

    pub(super) fn plus(self, other: Weight) -> Self {
        Weight(self.0.saturating_add(other.0))
    }

    pub(super) fn times(self, factor: usize) -> Self {
        Weight(self.0.saturating_mul(factor as u64))
    }

    pub(super) fn part(self, divisor: u64) -> Self {
        Weight(self.0 / divisor)
    }

    /// The weight of a value as functions see it.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::String(text) => Weight::of_bytes(text.len()),
            Value::Bytes(bytes) => Weight::of_bytes(bytes.len()),
            Value::List(items) => items.iter().map(Weight::of).fold(Weight::NONE, Weight::entry),
            Value::Map(map) => {
                map.map.iter().map(|(key, value)| of_key(key).plus(Weight::of(value))).fold(Weight::NONE, Weight::entry)
            }
            Value::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
                Some(optional) => optional.value().map_or(Weight::NONE, Weight::of),
                None => Weight::NONE,
            },
            _ => Weight::NONE,
        }
    }

    /// The weight of a value as operators see it.
    pub(super) fn of_val(value: &dyn Val) -> Self {
        if let Some(text) = value.downcast_ref::<CelString>() {
            Weight::of_bytes(text.inner().len())
        } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
            Weight::of_bytes(bytes.inner().len())
        } else if let Some(list) = value.downcast_ref::<CelList>() {
            list.inner().iter().map(|item| Weight::of_val(item.as_ref())).fold(Weight::NONE, Weight::entry)
        } else if let Some(map) = value.downcast_ref::<CelMap>() {
            let entries = map.inner().iter();
            let weights = entries.map(|(key, value)| Weight::of_val(key.inner()).plus(Weight::of_val(value.as_ref())));
            weights.fold(Weight::NONE, Weight::entry)
        } else if let Some(optional) = value.downcast_ref::<CelOptional>() {
            optional.inner().map_or(Weight::NONE, Weight::of_val)
        } else {
            Weight::NONE
        }
    }

    /// Returns the weight of a comparison of two values: it ends at the first difference, and where lengths differ.
    pub(super) fn of_comparing(one: &dyn Val, other: &dyn Val) -> Self {
        if let (Some(one), Some(other)) = (one.downcast_ref::<CelList>(), other.downcast_ref::<CelList>()) {
            if one.inner().len() != other.inner().len() {
                return Weight::NONE;
            }
            let pairs = one.inner().iter().zip(other.inner());
            return pairs
                .map(|(one, other)| Weight::of_comparing(one.as_ref(), other.as_ref()))
                .fold(Weight::NONE, Weight::entry);
        }
        if let (Some(one), Some(other)) = (one.downcast_ref::<CelMap>(), other.downcast_ref::<CelMap>()) {
            if one.inner().len() != other.inner().len() {
                return Weight::NONE;
            }
            return Weight::of_val(one);
        }
        if let (Some(one), Some(other)) = (one.downcast_ref::<CelString>(), other.downcast_ref::<CelString>()) {
            return Weight::of_bytes(one.inner().len().min(other.inner().len()));
        }
        if let (Some(one), Some(other)) = (one.downcast_ref::<CelBytes>(), other.downcast_ref::<CelBytes>()) {
            return Weight::of_bytes(one.inner().len().min(other.inner().len()));
        }
        Weight::NONE
    }

    fn entry(self, entry: Weight) -> Self {
        self.plus(entry).plus(Weight(ENTRY))
    }
}

fn of_key(key: &Key) -> Weight {
    match key {
        Key::String(text) => Weight::of_bytes(text.len()),
        _ => Weight::NONE,
    }
}
