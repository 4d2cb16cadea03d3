//! An index from values to objects of a kind, so that a selector that requires a value does not check every object.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::object::CachedObject;
use crate::state::storage::keys::ObjectKey;

/// A term that selectors compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term<'a> {
    /// A label's key and value.
    Label(&'a str, &'a str),
    /// The position of a selectable field in the kind's list, and its text.
    Field(usize, &'a str),
}

/// The objects of a kind, in order.
type Objects = BTreeMap<ObjectKey, Arc<CachedObject>>;

/// The objects with one value, in order.
#[derive(Debug)]
enum Posting {
    /// A value of only one object, which is frequent, needs no tree.
    One(Arc<CachedObject>),
    Many(Objects),
    /// The number of objects at which checking every object costs about the same: only their number is kept.
    Common(usize),
}

type ByText = HashMap<Box<str>, Posting>;

/// An index of every label and every selectable field of the objects of a kind.
#[derive(Debug, Default)]
pub(super) struct Index {
    labels: HashMap<Box<str>, ByText>,
    fields: Vec<ByText>,
    /// Changes since the last [`Index::review`].
    unreviewed: usize,
}

/// Values of fewer objects are never common. Small in tests, which have few objects.
const COMMON_FROM: usize = if cfg!(test) { 3 } else { 1024 };

fn is_common(count: usize, objects: usize) -> bool {
    count >= COMMON_FROM && count > objects / 2
}

/// Whether a common value has become rare. Not the negation of common, so that values near the limit are not rebuilt again and
/// again.
fn is_rare(count: usize, objects: usize) -> bool {
    count < COMMON_FROM / 2 || count < objects / 4
}

impl Index {
    /// Builds the index of these objects.
    pub(super) fn of(objects: &Objects) -> Self {
        let mut index = Self::default();
        for object in objects.values() {
            index.replace(None, Some(object), objects);
        }
        index
    }

    /// Replaces the old state of an object by the new one; `objects` are all objects in their current state.
    pub(super) fn replace(
        &mut self,
        previous: Option<&Arc<CachedObject>>,
        current: Option<&Arc<CachedObject>>,
        objects: &Objects,
    ) {
        self.exchange(previous, current, objects.len());
        self.unreviewed += 1;
        if self.unreviewed > objects.len() / 2 + COMMON_FROM {
            self.review(objects);
        }
    }

    fn exchange(&mut self, previous: Option<&Arc<CachedObject>>, current: Option<&Arc<CachedObject>>, all: usize) {
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
            let is_new = previous.is_none_or(|previous| previous.label(key) != Some(value));
            match self.labels.get_mut(key) {
                Some(by_value) => insert(by_value, value, current, is_new, all),
                None => insert(self.labels.entry(key.clone()).or_default(), value, current, is_new, all),
            }
        }
        if self.fields.len() < current.fields.len() {
            self.fields.resize_with(current.fields.len(), HashMap::new);
        }
        for (number, (by_text, text)) in self.fields.iter_mut().zip(&current.fields).enumerate() {
            let is_new = previous.is_none_or(|previous| previous.fields.get(number) != Some(text));
            insert(by_text, text, current, is_new, all);
        }
    }

    /// Rebuilds trees for values that have become rare. It checks all objects, and so runs once in half as many changes.
    fn review(&mut self, objects: &Objects) {
        self.unreviewed = 0;
        let has = |select: &dyn Fn(&CachedObject) -> bool| -> Objects {
            let having = objects.iter().filter(|(_, object)| select(object));
            having.map(|(key, object)| (key.clone(), object.clone())).collect()
        };
        for (key, by_value) in &mut self.labels {
            for (value, posting) in rare(by_value, objects.len()) {
                *posting = Posting::Many(has(&|object| object.label(key) == Some(value)));
            }
        }
        for (number, by_text) in self.fields.iter_mut().enumerate() {
            for (text, posting) in rare(by_text, objects.len()) {
                *posting = Posting::Many(has(&|object| object.fields.get(number) == Some(text)));
            }
        }
    }

    /// Returns the objects in the range that match the rarest of `terms`; `None` if those are most objects, or there are no
    /// terms.
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
            Some(Posting::Common(_)) => return None,
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
            Posting::Common(count) => *count,
        }
    }
}

/// Returns the counted values that are no longer common.
fn rare(by_text: &mut ByText, objects: usize) -> impl Iterator<Item = (&Box<str>, &mut Posting)> {
    by_text.iter_mut().filter(move |(_, posting)| matches!(posting, Posting::Common(count) if is_rare(*count, objects)))
}

/// Adds an object to a value. `is_new`: the object had another value before, or did not exist; `all`: the number of objects.
fn insert(by_text: &mut ByText, text: &str, object: &Arc<CachedObject>, is_new: bool, all: usize) {
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
            if is_common(objects.len(), all) {
                *posting = Posting::Common(objects.len());
            }
        }
        Posting::Common(count) => *count += usize::from(is_new),
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
        Posting::Common(count) => {
            *count -= 1;
            *count == 0
        }
    };
    if is_empty {
        by_text.remove(text);
    }
}
