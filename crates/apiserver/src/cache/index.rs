//! Which objects of a kind have a value: so that a selector which demands one does not look at every object.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::object::CachedObject;
use crate::storage::keys::ObjectKey;

/// What selectors compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term<'a> {
    /// A label's key and value.
    Label(&'a str, &'a str),
    /// The number of a selectable field, in the kind's order, and its text.
    Field(usize, &'a str),
}

/// The objects with one value, in order.
#[derive(Debug)]
enum Posting {
    /// Many values are one object's alone: those need no tree.
    One(Arc<CachedObject>),
    Many(BTreeMap<ObjectKey, Arc<CachedObject>>),
}

type ByText = HashMap<Box<str>, Posting>;

/// Every label and every selectable field of the objects of a kind.
#[derive(Debug, Default)]
pub(super) struct Index {
    labels: HashMap<Box<str>, ByText>,
    fields: Vec<ByText>,
}

impl Index {
    /// Of these objects.
    pub(super) fn of<'a>(objects: impl Iterator<Item = &'a Arc<CachedObject>>) -> Self {
        let mut index = Self::default();
        for object in objects {
            index.replace(None, Some(object));
        }
        index
    }

    /// Puts the new state of an object in place of the one before.
    pub(super) fn replace(&mut self, previous: Option<&Arc<CachedObject>>, current: Option<&Arc<CachedObject>>) {
        for (key, value) in previous.iter().flat_map(|object| &object.labels) {
            let stays = current.is_some_and(|current| current.label(key) == Some(value));
            if !stays && let Some(by_value) = self.labels.get_mut(key) {
                remove(by_value, value, previous);
                if by_value.is_empty() {
                    self.labels.remove(key);
                }
            }
        }
        for (number, text) in previous.iter().flat_map(|object| &object.fields).enumerate() {
            let stays = current.is_some_and(|current| current.fields.get(number) == Some(text));
            if !stays && let Some(by_text) = self.fields.get_mut(number) {
                remove(by_text, text, previous);
            }
        }
        let Some(current) = current else { return };
        for (key, value) in &current.labels {
            match self.labels.get_mut(key) {
                Some(by_value) => insert(by_value, value, current),
                None => insert(self.labels.entry(key.clone()).or_default(), value, current),
            }
        }
        if self.fields.len() < current.fields.len() {
            self.fields.resize_with(current.fields.len(), HashMap::new);
        }
        for (by_text, text) in self.fields.iter_mut().zip(&current.fields) {
            insert(by_text, text, current);
        }
    }

    /// The fewest objects that one of `terms` leaves, in the range; `None` if there are no terms.
    pub(super) fn narrowed<'a>(
        &'a self,
        terms: &[Term<'_>],
        range: (Bound<&'a str>, Bound<&'a str>),
    ) -> Option<impl Iterator<Item = (&'a str, &'a Arc<CachedObject>)>> {
        let postings = terms.iter().map(|term| match term {
            Term::Label(key, value) => self.labels.get(*key).and_then(|by_value| by_value.get(*value)),
            Term::Field(number, text) => self.fields.get(*number).and_then(|by_text| by_text.get(*text)),
        });
        let fewest = postings.min_by_key(|posting| posting.map_or(0, Posting::len))?;
        let (one, many) = match fewest {
            None => (None, None),
            Some(Posting::One(object)) => {
                (Some(object).filter(|object| RangeBounds::<str>::contains(&range, object.key.as_str())), None)
            }
            Some(Posting::Many(objects)) => (None, Some(objects.range::<str, _>(range))),
        };
        let many = many.into_iter().flatten().map(|(key, object)| (key.as_str(), object));
        Some(one.into_iter().map(|object| (object.key.as_str(), object)).chain(many))
    }
}

impl Posting {
    fn len(&self) -> usize {
        match self {
            Posting::One(_) => 1,
            Posting::Many(objects) => objects.len(),
        }
    }
}

fn insert(by_text: &mut ByText, text: &str, object: &Arc<CachedObject>) {
    let Some(posting) = by_text.get_mut(text) else {
        by_text.insert(text.into(), Posting::One(object.clone()));
        return;
    };
    match posting {
        Posting::One(only) if only.key == object.key => *only = object.clone(),
        Posting::One(only) => {
            let both = [only, object].map(|object| (object.key.clone(), object.clone()));
            *posting = Posting::Many(both.into());
        }
        Posting::Many(objects) => {
            objects.insert(object.key.clone(), object.clone());
        }
    }
}

fn remove(by_text: &mut ByText, text: &str, object: Option<&Arc<CachedObject>>) {
    let (Some(posting), Some(object)) = (by_text.get_mut(text), object) else { return };
    let is_empty = match posting {
        Posting::One(only) => only.key == object.key,
        Posting::Many(objects) => {
            objects.remove(&object.key);
            objects.is_empty()
        }
    };
    if is_empty {
        by_text.remove(text);
    }
}
