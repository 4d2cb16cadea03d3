//! Transactions: etcd compares the conditions; if one does not hold, it returns all their keys, from which the first failed
//! condition is determined. One more comparison is that of the claim.

use bytes::Bytes;

use super::error::{Refusal, failed, refusal};
use super::{Inner, LIMITS, TXN, claim, header, proto};
use crate::contract::{Condition, KeyRange, KeyValue, LeaseId, Operation, Result, Txn, TxnOutcome};
use crate::error::StoreError;

use super::client::Effect;

/// Runs a transaction whose size has been checked.
pub(super) async fn run(inner: &Inner, txn: Txn) -> Result<TxnOutcome> {
    let keys = &inner.keys;
    let (claim, is_ours) = fence(inner)?;
    let read = |key: Bytes| operation(proto::Request::Range(proto::RangeRequest { key, ..Default::default() }));
    let request = proto::TxnRequest {
        compare: txn.conditions.iter().map(|condition| comparison(inner, condition)).chain([is_ours]).collect(),
        success: txn
            .operations
            .iter()
            .map(|change| {
                operation(match change {
                    Operation::Put { key, value, lease } => proto::Request::Put(proto::PutRequest {
                        key: keys.key(key),
                        value: keys.seal(key, value),
                        lease: lease.map_or(0, |id| id.0 as i64),
                    }),
                    Operation::Delete { key } => {
                        let range_end = Bytes::new();
                        proto::Request::DeleteRange(proto::DeleteRangeRequest { key: keys.key(key), range_end })
                    }
                })
            })
            .collect(),
        failure: txn.conditions.iter().map(|condition| read(keys.key(condition.key()))).chain([read(claim)]).collect(),
    };
    let effect = if txn.operations.is_empty() { Effect::Read } else { Effect::Write };
    let answer: proto::TxnResponse = match inner.client.call(TXN, effect, request).await {
        Ok(answer) => answer,
        Err(status) => {
            return Err(match refusal(&status) {
                Refusal::LeaseNotFound => StoreError::LeaseNotFound { id: ended_lease(inner, &txn).await? },
                Refusal::TooLarge => too_large("size of a transaction in bytes", size(&txn), LIMITS.txn_bytes),
                Refusal::TooManyOperations => {
                    let operations = txn.operations.len().max(txn.conditions.len());
                    too_large("number of a transaction's operations", operations, LIMITS.operations)
                }
                _ => failed("apply a transaction", status),
            });
        }
    };
    let revision = keys.revision(header(answer.header));
    if answer.succeeded {
        return Ok(TxnOutcome::Committed { revision });
    }
    let found = |index: usize| answer.responses.get(index)?.range.as_ref()?.kvs.first();
    check_fence(inner, found(txn.conditions.len())).await?;
    for (index, condition) in txn.conditions.iter().enumerate() {
        let current = found(index).map(|found| keys.item(found)).transpose()?;
        if !holds(condition, current.as_ref()) {
            return Ok(TxnOutcome::ConditionFailed { index, current, revision });
        }
    }
    Err(StoreError::backend("apply a transaction", "etcd refused it, but all of its conditions hold"))
}

/// Removes every key of an etcd range, including the claim.
pub(super) async fn erase(inner: &Inner, range: KeyRange) -> Result<()> {
    let (claim, is_ours) = fence(inner)?;
    let all = proto::DeleteRangeRequest { key: range.start, range_end: range.end.unwrap_or_default() };
    let request = proto::TxnRequest {
        compare: vec![is_ours],
        success: vec![operation(proto::Request::DeleteRange(all))],
        failure: vec![operation(proto::Request::Range(proto::RangeRequest { key: claim, ..Default::default() }))],
    };
    let answer: Result<proto::TxnResponse, _> = inner.client.call(TXN, Effect::Write, request).await;
    let answer = answer.map_err(|status| failed("remove the store", status))?;
    if answer.succeeded {
        return Ok(());
    }
    let found = answer.responses.first().and_then(|response| response.range.as_ref()?.kvs.first());
    check_fence(inner, found).await?;
    Err(StoreError::backend("remove the store", "etcd refused it, but the claim is still held"))
}

/// Returns the key of the claim, and the comparison that fails if it was lost.
fn fence(inner: &Inner) -> Result<(Bytes, proto::Compare)> {
    let key = claim::key(&inner.address.prefix);
    let is_ours = compare(&key, proto::CompareResult::Equal, proto::Target::ModRevision(inner.held()?.revision));
    Ok((key, is_ours))
}

/// Checks the claim in the response to a refused transaction.
async fn check_fence(inner: &Inner, found: Option<&proto::KeyValue>) -> Result<()> {
    if found.map(|claim| claim.mod_revision) == Some(inner.held()?.revision) {
        return Ok(());
    }
    inner.lose().await;
    Err(StoreError::Closed)
}

fn holds(condition: &Condition, current: Option<&KeyValue>) -> bool {
    match condition {
        Condition::Absent(_) => current.is_none(),
        Condition::Exists(_) => current.is_some(),
        Condition::Unchanged(_, revision) => current.is_some_and(|item| item.mod_revision == *revision),
        Condition::Holds(_, value) => current.is_some_and(|item| item.value == *value),
    }
}

fn comparison(inner: &Inner, condition: &Condition) -> proto::Compare {
    let key = inner.keys.key(condition.key());
    match condition {
        Condition::Absent(_) => compare(&key, proto::CompareResult::Equal, proto::Target::CreateRevision(0)),
        Condition::Exists(_) => compare(&key, proto::CompareResult::Greater, proto::Target::CreateRevision(0)),
        Condition::Unchanged(_, revision) => {
            // No key of the store has a revision before the store's creation; 0 would match absent keys.
            let revision = inner.keys.etcd_revision(*revision).unwrap_or(inner.keys.created());
            compare(&key, proto::CompareResult::Equal, proto::Target::ModRevision(revision))
        }
        Condition::Holds(name, value) => {
            let sealed = inner.keys.seal(name, value);
            compare(&key, proto::CompareResult::Equal, proto::Target::Value(sealed))
        }
    }
}

pub(super) fn compare(key: &Bytes, result: proto::CompareResult, value: proto::Target) -> proto::Compare {
    let target = match value {
        proto::Target::CreateRevision(_) => proto::CompareTarget::Create,
        proto::Target::ModRevision(_) => proto::CompareTarget::Mod,
        proto::Target::Value(_) => proto::CompareTarget::Value,
    };
    proto::Compare { result: result.into(), target: target.into(), key: key.clone(), value: Some(value) }
}

pub(super) fn operation(request: proto::Request) -> proto::RequestOp {
    proto::RequestOp { request: Some(request) }
}

/// Finds the lease of a transaction that has ended, which etcd does not report.
async fn ended_lease(inner: &Inner, txn: &Txn) -> Result<LeaseId> {
    let mut named = txn.operations.iter().filter_map(|operation| match operation {
        Operation::Put { lease, .. } => *lease,
        Operation::Delete { .. } => None,
    });
    let first = named.clone().next();
    let mut last = first.unwrap_or(LeaseId(0));
    for id in named.by_ref() {
        last = id;
        if inner.time_to_live(id).await?.is_none() {
            return Ok(id);
        }
    }
    Ok(last)
}

fn too_large(what: &'static str, size: usize, limit: usize) -> StoreError {
    // The server's limit may be lower than the default.
    StoreError::TooLarge { what, size, limit: limit.min(size.saturating_sub(1)) }
}

fn size(txn: &Txn) -> usize {
    let of = |operation: &Operation| match operation {
        Operation::Put { key, value, .. } => key.len() + value.len(),
        Operation::Delete { key } => key.len(),
    };
    txn.operations.iter().map(of).sum::<usize>()
        + txn.conditions.iter().map(|c| c.key().len() + c.value_bytes()).sum::<usize>()
}
