//! The objects of one kind and their recent changes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::change::Change;
use super::index::{Index, Term};
use super::object::CachedObject;
use crate::state::storage::keys::ObjectKey;

/// Changes kept per kind for watches that resume and lists that continue. Lower expires slow clients under load; higher keeps
/// more replaced objects in memory.
const HISTORY_CHANGES: usize = 10_000;
/// Bytes of replaced objects kept per kind, for the same reasons.
const HISTORY_BYTES: usize = 32 << 20;

/// The error for a revision before the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The history holds every change after this revision.
    pub oldest: u64,
}

/// A part of a kind's objects, in order.
pub struct Page {
    /// The objects.
    pub items: Vec<Arc<CachedObject>>,
    /// The revision that the page shows.
    pub revision: u64,
    /// Whether more would follow.
    pub more: bool,
    /// The number of objects of the range that follow; only counted if `more`.
    pub remaining: usize,
}

/// Selects a part of a kind's objects.
pub struct PageRequest<'a> {
    /// Only this namespace; empty for all.
    pub namespace: &'a str,
    /// Only keys greater than this one.
    pub after: Option<&'a str>,
    /// The maximum number of objects.
    pub limit: Option<usize>,
    /// As of this revision; `None` for the newest.
    pub at: Option<u64>,
    /// Only this key.
    pub only: Option<&'a str>,
    /// Terms that every selected object has: only objects with the rarest of them are checked.
    pub terms: &'a [Term<'a>],
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Arc<CachedObject>>,
    /// The number of objects in each namespace that has some: a quota asks for it before every create.
    counts: HashMap<Box<str>, usize>,
    index: Index,
    history: VecDeque<Arc<Change>>,
    history_bytes: usize,
    /// Number of the first change in `history`, counted from the start of the process.
    first: u64,
    /// `history` holds every change after this revision.
    floor: u64,
    /// The revision of the newest change.
    newest: u64,
}

impl State {
    /// Adds to the number of objects of a namespace.
    fn count(&mut self, namespace: &str, change: isize) {
        match (self.counts.get_mut(namespace), change) {
            (_, 0) => {}
            (Some(count), _) if count.checked_add_signed(change) == Some(0) => {
                self.counts.remove(namespace);
            }
            (Some(count), _) => *count = count.saturating_add_signed(change),
            (None, _) => {
                self.counts.insert(namespace.into(), change.unsigned_abs());
            }
        }
    }
}

/// The objects of one kind.
#[derive(Debug)]
pub struct KindCache {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
}

impl Default for KindCache {
    fn default() -> Self {
        KindCache { state: RwLock::default(), changed: watch::Sender::new(0) }
    }
}

impl KindCache {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces everything, as of `revision`; running watches end with "too old".
    pub(super) fn reset(&self, objects: BTreeMap<ObjectKey, Arc<CachedObject>>, revision: u64) {
        let index = Index::of(&objects);
        let mut state = self.write();
        state.counts.clear();
        objects.keys().for_each(|key| state.count(key.namespace(), 1));
        state.objects = objects;
        state.index = index;
        state.first += state.history.len() as u64 + 1;
        state.history.clear();
        state.history_bytes = 0;
        state.floor = revision;
        state.newest = revision;
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Applies the changes of one revision, and returns them.
    pub(super) fn apply(
        &self,
        revision: u64,
        changes: Vec<(ObjectKey, Option<Arc<CachedObject>>)>,
    ) -> Vec<Arc<Change>> {
        let mut applied = Vec::with_capacity(changes.len());
        let mut guard = self.write();
        let state = &mut *guard;
        for (key, current) in changes {
            let namespace: Box<str> = key.namespace().into();
            let previous = match &current {
                Some(object) => state.objects.insert(key, object.clone()),
                None => state.objects.remove(&key),
            };
            state.count(&namespace, isize::from(current.is_some()) - isize::from(previous.is_some()));
            if previous.is_none() && current.is_none() {
                continue;
            }
            state.index.replace(previous.as_ref(), current.as_ref(), &state.objects);
            let change = Arc::new(Change::new(revision, previous, current));
            state.history_bytes += change.weight();
            state.history.push_back(change.clone());
            applied.push(change);
        }
        state.newest = revision;
        while state.history.len() > HISTORY_CHANGES || state.history_bytes > HISTORY_BYTES {
            let Some(dropped) = state.history.pop_front() else { break };
            state.history_bytes -= dropped.weight();
            state.first += 1;
            state.floor = dropped.revision;
        }
        drop(guard);
        self.changed.send_modify(|count| *count += 1);
        applied
    }

    /// Returns one object.
    pub fn get(&self, key: &str) -> Option<Arc<CachedObject>> {
        self.read().objects.get(key).cloned()
    }

    /// Returns the objects that `select` accepts, in order.
    pub fn select(&self, select: impl Fn(&CachedObject) -> bool) -> Vec<Arc<CachedObject>> {
        self.read().objects.values().filter(|object| select(object)).cloned().collect()
    }

    /// Returns the objects of a namespace, in order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<CachedObject>> {
        let (start, end) = bounds(namespace, None);
        let state = self.read();
        state.objects.range::<str, _>((as_bound(&start), as_bound(&end))).map(|(_, object)| object.clone()).collect()
    }

    /// Returns the number of objects.
    pub fn count(&self) -> usize {
        self.read().objects.len()
    }

    /// Returns the number of objects in a namespace, or of all if that is empty, in constant time.
    pub fn count_in(&self, namespace: &str) -> usize {
        let state = self.read();
        if namespace.is_empty() {
            return state.objects.len();
        }
        state.counts.get(namespace).copied().unwrap_or_default()
    }

    /// Whether a namespace holds an object that is not being deleted.
    pub fn has_undeleted_in(&self, namespace: &str) -> bool {
        let (start, end) = bounds(namespace, None);
        self.read().objects.range::<str, _>((as_bound(&start), as_bound(&end))).any(|(_, object)| !object.is_deleting)
    }

    /// Returns the finalizers of a namespace's objects, each with the number of objects.
    pub fn finalizers_in(&self, namespace: &str) -> BTreeMap<String, usize> {
        let (start, end) = bounds(namespace, None);
        let mut counts = BTreeMap::new();
        for object in self.read().objects.range::<str, _>((as_bound(&start), as_bound(&end))).map(|(_, object)| object)
        {
            for finalizer in object.finalizers.iter().filter(|_| object.is_deleting) {
                *counts.entry(finalizer.to_string()).or_default() += 1;
            }
        }
        counts
    }

    /// Returns a page of the objects that `select` accepts. `known` is the revision that the whole cache has reached.
    ///
    /// # Errors
    /// If the requested revision is before the history.
    pub fn page(
        &self,
        request: &PageRequest<'_>,
        known: u64,
        select: impl Fn(&CachedObject) -> bool,
    ) -> Result<Page, TooOld> {
        let state = self.read();
        let now = known.max(state.newest);
        let at = request.at.unwrap_or(now);
        if at < state.floor {
            return Err(TooOld { oldest: state.floor });
        }
        // The objects that changed later: the oldest change after `at` has the state at `at`.
        let mut then: BTreeMap<&str, Option<&Arc<CachedObject>>> = BTreeMap::new();
        for change in state.history.iter().rev().take_while(|change| change.revision > at) {
            if let Some(subject) = change.subject() {
                then.insert(subject.key.as_str(), change.previous.as_ref());
            }
        }
        let (start, end) = bounds(request.namespace, request.after);
        let range = match (request.only, (as_bound(&start), as_bound(&end))) {
            (Some(key), range) if RangeBounds::<str>::contains(&range, key) => {
                (Bound::Included(key), Bound::Included(key))
            }
            (Some(key), _) => (Bound::Included(key), Bound::Excluded(key)),
            (None, range) => range,
        };
        let narrowed = state.index.narrowed(request.terms, range);
        let all = narrowed.is_none().then(|| state.objects.range::<str, _>(range));
        let all = all.into_iter().flatten().map(|(key, object)| (key.as_str(), object));
        let mut newest = narrowed.into_iter().flatten().chain(all).peekable();
        let mut older = then.range::<str, _>(range).peekable();
        let mut merged = std::iter::from_fn(|| {
            loop {
                let take_older = match (newest.peek(), older.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => false,
                    (None, Some(_)) => true,
                    (Some((new, _)), Some((old, _))) => *old <= new,
                };
                if !take_older {
                    return newest.next().map(|(_, object)| object);
                }
                let (key, object) = older.next()?;
                if newest.peek().is_some_and(|(new, _)| new == key) {
                    newest.next();
                }
                if let Some(object) = object {
                    return Some(*object);
                }
            }
        });
        let mut items = Vec::new();
        let mut more = false;
        let mut remaining = 0;
        for object in merged.by_ref() {
            if !select(object) {
                continue;
            }
            if request.limit.is_some_and(|limit| items.len() >= limit) {
                more = true;
                remaining = 1;
                break;
            }
            items.push(object.clone());
        }
        if more {
            remaining += merged.count();
        }
        Ok(Page { items, revision: at, more, remaining })
    }

    /// Returns a cursor into the history from which a watch reads the changes after `revision`.
    ///
    /// # Errors
    /// If the revision is before the history.
    pub fn cursor_after(&self, revision: u64) -> Result<u64, TooOld> {
        let state = self.read();
        if revision < state.floor {
            return Err(TooOld { oldest: state.floor });
        }
        let skipped = state.history.partition_point(|change| change.revision <= revision);
        Ok(state.first + skipped as u64)
    }

    /// Returns at most `limit` changes from `cursor` on.
    ///
    /// # Errors
    /// If the reader has fallen behind the history.
    pub fn changes_from(&self, cursor: u64, limit: usize) -> Result<Vec<Arc<Change>>, TooOld> {
        let state = self.read();
        if cursor < state.first {
            return Err(TooOld { oldest: state.floor });
        }
        let skipped = (cursor - state.first) as usize;
        Ok(state.history.iter().skip(skipped).take(limit).cloned().collect())
    }

    /// Returns a receiver that is notified of changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

type TextBound = Bound<String>;

/// Returns the range of keys of a namespace after a key.
fn bounds(namespace: &str, after: Option<&str>) -> (TextBound, TextBound) {
    let (first, end) = if namespace.is_empty() {
        (Bound::Unbounded, Bound::Unbounded)
    } else {
        // '0' follows '/'.
        (Bound::Included(format!("{namespace}/")), Bound::Excluded(format!("{namespace}0")))
    };
    let start = match after {
        Some(after) if matches!(&first, Bound::Included(first) if after < first.as_str()) => first,
        Some(after) => Bound::Excluded(after.to_owned()),
        None => first,
    };
    match (&start, &end) {
        // No key can follow; an inverted range would panic.
        (Bound::Excluded(start), Bound::Excluded(end)) if start >= end => {
            (Bound::Included(end.clone()), Bound::Excluded(end.clone()))
        }
        _ => (start, end),
    }
}

fn as_bound(bound: &TextBound) -> Bound<&str> {
    match bound {
        Bound::Included(text) => Bound::Included(text.as_str()),
        Bound::Excluded(text) => Bound::Excluded(text.as_str()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

#[cfg(test)]
mod tests;
