//! A group: transactions that share a commit and see each other's changes.

use std::collections::HashMap;

use bytes::Bytes;

use super::Writer;
use crate::contract::{Condition, KeyValue, Lease, LeaseId, Operation, Result, Revision, Txn, TxnOutcome};
use crate::embedded::hub::{PreviousRow, Published, PublishedRevision};
use crate::embedded::index::{RowId, Version};
use crate::embedded::read_lock;
use crate::embedded::rows::{self, Head, missing};
use crate::error::StoreError;

/// The changes of transactions that share a commit.
#[derive(Default)]
pub(super) struct Group {
    pub(super) revisions: Vec<PublishedRevision>,
    pub(super) rows: Vec<(Head, Option<Bytes>)>,
    /// The newest state of each key that this group changed: its position in `rows`.
    pub(super) heads: HashMap<Bytes, usize>,
    /// A lease that this group grants or ends.
    pub(super) lease: Option<LeaseChange>,
    pub(super) bytes: usize,
}

pub(super) enum LeaseChange {
    Grant(Lease),
    End(LeaseId),
}

impl Writer {
    /// Decides a transaction and adds its changes to the group.
    pub(super) fn stage(&self, group: &mut Group, txn: Txn) -> Result<TxnOutcome> {
        for operation in &txn.operations {
            if let Operation::Put { lease: Some(id), .. } = operation
                && !self.leases.contains(*id)
            {
                return Err(StoreError::LeaseNotFound { id: *id });
            }
        }
        let revision = self.newest_revision(group);
        for (index, condition) in txn.conditions.iter().enumerate() {
            let newest = self.newest_of(group, condition.key());
            let found = newest.filter(|(version, _)| version.is_live());
            let holds = match condition {
                Condition::Absent(_) => found.is_none(),
                Condition::Exists(_) => found.is_some(),
                Condition::Unchanged(_, expected) => {
                    found.is_some_and(|(version, _)| version.row.revision() == *expected)
                }
                Condition::Holds(key, expected) => match found {
                    Some((version, staged)) => self.item(group, key, version, staged)?.value == *expected,
                    None => false,
                },
            };
            if !holds {
                let current = match found {
                    Some((version, staged)) => Some(self.item(group, condition.key(), version, staged)?),
                    None => None,
                };
                return Ok(TxnOutcome::ConditionFailed { index, current, revision });
            }
        }
        let revision = self.apply(group, txn.operations);
        Ok(TxnOutcome::Committed { revision })
    }

    pub(super) fn newest_revision(&self, group: &Group) -> Revision {
        group.revisions.last().map_or(self.state.revision, |published| published.revision)
    }

    /// Returns the newest version of a key, with its position if this group wrote it.
    fn newest_of(&self, group: &Group, key: &[u8]) -> Option<(Version, Option<usize>)> {
        if let Some(position) = group.heads.get(key) {
            let head = &group.rows[*position].0;
            let version = Version { row: head.row, create_revision: head.create_revision };
            return Some((version, Some(*position)));
        }
        let version = read_lock(&self.shared.index).newest(key)?;
        Some((version, None))
    }

    fn item(&self, group: &Group, key: &Bytes, version: Version, staged: Option<usize>) -> Result<KeyValue> {
        if let Some(position) = staged {
            let (head, value) = &group.rows[position];
            return Ok(KeyValue {
                key: head.key.clone(),
                value: value.clone().unwrap_or_default(),
                create_revision: head.create_revision.unwrap_or_default(),
                mod_revision: head.row.revision(),
                lease: head.lease,
            });
        }
        rows::read_row(&self.conn, key, version.row)?.ok_or_else(|| missing(key, version.row))
    }

    /// Adds operations as one revision; returns the group's newest revision.
    pub(super) fn apply(&self, group: &mut Group, operations: Vec<Operation>) -> Revision {
        let before = self.newest_revision(group);
        let revision = before.next();
        let mut changes = Vec::new();
        for operation in operations {
            let (key, value, lease) = match operation {
                Operation::Put { key, value, lease } => (key, Some(value), lease),
                Operation::Delete { key } => (key, None, None),
            };
            let previous = self.newest_of(group, &key).filter(|(version, _)| version.is_live());
            if value.is_none() && previous.is_none() {
                continue;
            }
            let create_revision = value.as_ref().map(|_| match previous {
                Some((version, _)) => version.create_revision.unwrap_or(revision),
                None => revision,
            });
            let head = Head {
                row: RowId::new(revision, changes.len()),
                key: key.clone(),
                create_revision,
                previous: previous.map(|(version, _)| version.row),
                lease,
            };
            changes.push(Published {
                key: key.clone(),
                item: value.clone().zip(create_revision).map(|(value, created)| KeyValue {
                    key: key.clone(),
                    value,
                    create_revision: created,
                    mod_revision: revision,
                    lease,
                }),
                previous: previous.map(|(version, staged)| PreviousRow {
                    row: version.row,
                    value: staged.and_then(|position| group.rows[position].1.clone()),
                }),
            });
            group.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
            group.heads.insert(key, group.rows.len());
            group.rows.push((head, value));
        }
        if changes.is_empty() {
            return before;
        }
        group.revisions.push(PublishedRevision { revision, changes });
        revision
    }
}
