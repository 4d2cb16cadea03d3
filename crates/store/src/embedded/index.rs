//! The index in memory, from key and revision to row.
//!
//! Rows are stored in the order of revisions, which makes writes fast; only this index has the order of keys. It is rebuilt from
//! the rows at open. It holds no values.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::contract::{KeyRange, Revision};
use crate::error::StoreError;

/// The row of a change: the revision and the position within the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowId(pub u64);

impl RowId {
    /// Bits for the position within a transaction; the other 47 (SQLite's integers are signed) are the revision.
    const POSITION_BITS: u32 = 16;
    /// The maximum number of operations of a transaction.
    pub const MAX_POSITIONS: usize = 1 << Self::POSITION_BITS;

    pub fn new(revision: Revision, position: usize) -> Self {
        debug_assert!(position < Self::MAX_POSITIONS);
        RowId(revision.0 << Self::POSITION_BITS | position as u64)
    }

    /// Returns the first row that `revision` can have.
    pub fn first_of(revision: Revision) -> Self {
        RowId::new(revision, 0)
    }

    pub fn revision(self) -> Revision {
        Revision(self.0 >> Self::POSITION_BITS)
    }
}

/// One state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub row: RowId,
    /// `None` marks a delete.
    pub create_revision: Option<Revision>,
}

impl Version {
    pub fn is_live(&self) -> bool {
        self.create_revision.is_some()
    }
}

/// Keys with their versions, oldest first.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// Keys with superseded versions, by the revision whose compaction removes them.
    superseded: VecDeque<(Revision, Bytes)>,
    revision: Revision,
    compacted_at: Revision,
}

/// The rows of a page, before their values are read.
pub(super) struct IndexPage {
    pub items: Vec<(Bytes, Version)>,
    pub more: bool,
}

impl Index {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn compacted_at(&self) -> Revision {
        self.compacted_at
    }

    /// Advances to a revision whose changes were all applied.
    pub fn set_revision(&mut self, revision: Revision) {
        debug_assert!(revision >= self.revision);
        self.revision = revision;
    }

    /// Returns the revision to read at, if it can still be read.
    pub fn readable(&self, at: Option<Revision>) -> Result<Revision, StoreError> {
        let at = at.unwrap_or(self.revision);
        if at > self.revision {
            return Err(StoreError::FutureRevision { requested: at, current: self.revision });
        }
        if at < self.compacted_at {
            return Err(StoreError::Compacted { requested: at, compacted_at: self.compacted_at });
        }
        Ok(at)
    }

    /// Returns the newest version of a key, which may be a delete.
    pub fn newest(&self, key: &[u8]) -> Option<Version> {
        self.keys.get(key)?.last().copied()
    }

    /// Returns the version of a key at a revision; `None` if it did not exist.
    pub fn at(&self, key: &[u8], revision: Revision) -> Option<Version> {
        live_at(self.keys.get(key)?, revision)
    }

    /// Returns the keys of a range that exist at a revision, at most `limit`.
    pub fn page(&self, range: &KeyRange, revision: Revision, limit: Option<usize>) -> IndexPage {
        let mut items = Vec::new();
        for (key, version) in self.live(range, revision) {
            if limit.is_some_and(|limit| items.len() >= limit) {
                return IndexPage { items, more: true };
            }
            items.push((key.clone(), version));
        }
        IndexPage { items, more: false }
    }

    /// Returns the number of keys of a range that exist at a revision.
    pub fn count(&self, range: &KeyRange, revision: Revision) -> u64 {
        self.live(range, revision).count() as u64
    }

    fn live<'a>(&'a self, range: &'a KeyRange, revision: Revision) -> impl Iterator<Item = (&'a Bytes, Version)> {
        // BTreeMap panics at a start after the end.
        let start = match &range.end {
            Some(end) => (&range.start[..]).min(&end[..]),
            None => &range.start[..],
        };
        let end = range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        self.keys
            .range::<[u8], _>((Bound::Included(start), end))
            .filter_map(move |(key, versions)| live_at(versions, revision).map(|version| (key, version)))
    }

    /// Adds a version; it must be newer than all others of its key.
    pub fn apply(&mut self, key: &Bytes, version: Version) {
        let revision = version.row.revision();
        if let Some(versions) = self.keys.get_mut(key) {
            debug_assert!(versions.last().is_none_or(|last| last.row < version.row));
            if versions.last().is_some_and(Version::is_live) {
                self.superseded.push_back((revision, key.clone()));
            }
            versions.push(version);
        } else {
            // A delete without its put: a compaction was interrupted between the two.
            if !version.is_live() {
                self.superseded.push_back((revision, key.clone()));
            }
            self.keys.insert(key.clone(), vec![version]);
        }
    }

    /// Removes versions that are unreadable after a compaction at `at`, and returns their rows.
    pub fn compact(&mut self, at: Revision) -> Vec<RowId> {
        self.compacted_at = self.compacted_at.max(at);
        let mut forgotten = Vec::new();
        while self.superseded.front().is_some_and(|(revision, _)| *revision <= at) {
            let Some((_, key)) = self.superseded.pop_front() else {
                break;
            };
            let Some(versions) = self.keys.get_mut(&key) else {
                continue;
            };
            let later = versions.partition_point(|version| version.row.revision() <= at);
            // The version at `at` is kept, unless it is a delete.
            let keep_from = match later.checked_sub(1) {
                Some(newest) if versions[newest].is_live() => newest,
                _ => later,
            };
            forgotten.extend(versions.drain(..keep_from).map(|version| version.row));
            if versions.is_empty() {
                self.keys.remove(&key);
            }
        }
        forgotten
    }
}

fn live_at(versions: &[Version], revision: Revision) -> Option<Version> {
    // Most reads are of the newest state, which is the last version.
    versions.iter().rev().find(|version| version.row.revision() <= revision).copied().filter(Version::is_live)
}
