//! Sets of fields, for example those that a manager owns or a write changes. A field can be in the set without the fields below
//! it, and the other way round.

use super::path::Step;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of field paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    entries: BTreeMap<Step, Entry>,
}

/// The part of a set at and below one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The field itself is in the set.
    pub member: bool,
    /// The part of the set below it.
    pub below: FieldSet,
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    pub(super) const EMPTY: FieldSet = FieldSet { entries: BTreeMap::new() };

    /// Adds a path; the empty path (the object itself) is ignored.
    pub fn insert(&mut self, path: &[Step]) {
        let Some((first, rest)) = path.split_first() else { return };
        let entry = self.entries.entry(first.clone()).or_default();
        if rest.is_empty() {
            entry.member = true;
        } else {
            entry.below.insert(rest);
        }
    }

    /// Inserts an entry; an empty entry is ignored.
    pub(super) fn put(&mut self, step: Step, entry: Entry) {
        if !entry.is_empty() {
            self.entries.insert(step, entry);
        }
    }

    /// Removes these fields and everything below them.
    pub(super) fn remove_recursively(&mut self, other: &FieldSet) {
        for (step, theirs) in &other.entries {
            if theirs.member {
                self.entries.remove(step);
            } else if let Some(mine) = self.entries.get_mut(step) {
                mine.below.remove_recursively(&theirs.below);
                if mine.is_empty() {
                    self.entries.remove(step);
                }
            }
        }
    }

    /// Removes these fields and keeps the fields below them.
    pub(super) fn remove(&mut self, other: &FieldSet) {
        for (step, theirs) in &other.entries {
            if let Some(mine) = self.entries.get_mut(step) {
                mine.member &= !theirs.member;
                mine.below.remove(&theirs.below);
                if mine.is_empty() {
                    self.entries.remove(step);
                }
            }
        }
    }

    /// Adds all fields of another set.
    pub(super) fn extend(&mut self, other: FieldSet) {
        if self.entries.is_empty() {
            *self = other;
            return;
        }
        for (step, entry) in other.entries {
            let mine = self.entries.entry(step).or_default();
            mine.member |= entry.member;
            mine.below.extend(entry.below);
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the set contains the field itself.
    pub fn contains(&self, path: &[Step]) -> bool {
        match path.split_first() {
            None => false,
            Some((first, [])) => self.has(first),
            Some((first, rest)) => self.below(first).is_some_and(|set| set.contains(rest)),
        }
    }

    pub(super) fn has(&self, step: &Step) -> bool {
        self.entries.get(step).is_some_and(|e| e.member)
    }

    /// Returns the part of the set below a field, if there is any.
    pub(super) fn below(&self, step: &Step) -> Option<&FieldSet> {
        self.entries.get(step).map(|e| &e.below).filter(|set| !set.is_empty())
    }

    /// Returns the fields in either set.
    pub fn union(&self, other: &FieldSet) -> FieldSet {
        let mut out = self.clone();
        out.extend(other.clone());
        out
    }

    fn filter(&self, keep: impl Fn(&Step, &Entry) -> Entry) -> FieldSet {
        let entries = self.entries.iter().map(|(step, entry)| (step.clone(), keep(step, entry)));
        FieldSet { entries: entries.filter(|(_, entry)| !entry.is_empty()).collect() }
    }

    /// Returns the fields in both sets.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.filter(|step, entry| match other.entries.get(step) {
            None => Entry::default(),
            Some(theirs) => {
                Entry { member: entry.member && theirs.member, below: entry.below.intersection(&theirs.below) }
            }
        })
    }

    /// Returns the fields in this set and not in `other`. Fields below a field of `other` are kept.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        let mut out = self.clone();
        out.remove(other);
        out
    }

    /// Rebuilds the set: `visit` receives each step, whether it is a member, and the set below it.
    pub(super) fn map_entries(&self, mut visit: impl FnMut(&Step, bool, &FieldSet) -> (bool, FieldSet)) -> FieldSet {
        let mut out = FieldSet::default();
        for (step, entry) in &self.entries {
            let (member, below) = visit(step, entry.member, &entry.below);
            let entry = Entry { member, below };
            if !entry.is_empty() {
                out.entries.insert(step.clone(), entry);
            }
        }
        out
    }

    /// Returns all paths; at each level first the fields themselves, then those below them.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(step, _)| step.rank());
        for (step, _) in entries.iter().filter(|(_, entry)| entry.member) {
            out.push(prefix.iter().cloned().chain([(*step).clone()]).collect());
        }
        for (step, entry) in entries {
            prefix.push(step.clone());
            entry.below.collect(prefix, out);
            prefix.pop();
        }
    }

    /// Writes the `fieldsV1` format.
    pub fn to_fields_v1(&self) -> Value {
        Value::Object(self.fields_v1(false))
    }

    fn fields_v1(&self, is_member: bool) -> Map<String, Value> {
        let mut map = Map::with_capacity(self.entries.len() + usize::from(is_member));
        if is_member {
            map.insert(".".to_string(), Value::Object(Map::new()));
        }
        for (step, entry) in &self.entries {
            let below = entry.below.fields_v1(entry.member && !entry.below.is_empty());
            map.insert(step.as_str().to_string(), Value::Object(below));
        }
        map
    }

    /// Parses the `fieldsV1` format; `None` if the value is not in that format.
    pub fn from_fields_v1(value: &Value) -> Option<FieldSet> {
        let mut out = FieldSet::default();
        for (key, value) in value.as_object()? {
            if key == "." {
                continue;
            }
            let below = value.as_object()?;
            let entry =
                Entry { member: below.is_empty() || below.contains_key("."), below: FieldSet::from_fields_v1(value)? };
            if !entry.is_empty() {
                out.entries.insert(Step::parse(key)?, entry);
            }
        }
        Some(out)
    }
}
