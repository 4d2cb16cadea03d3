//! Checks of requests that do not depend on a backend's state.

use std::collections::HashSet;
use std::time::Duration;

use crate::contract::{Condition, Limits, Operation, Result, Txn};
use crate::error::StoreError;

/// Refuses transactions that are too large, have an empty key, or have a key twice.
pub(crate) fn check_txn(txn: &Txn, limits: &Limits) -> Result<()> {
    let at_most = |what, size, limit| {
        if size > limit {
            return Err(StoreError::TooLarge { what, size, limit });
        }
        Ok(())
    };
    at_most("number of a transaction's operations", txn.operations.len(), limits.operations)?;
    at_most("number of a transaction's conditions", txn.conditions.len(), limits.operations)?;
    let conditions = txn.conditions.iter().map(|condition| condition.key());
    let mut bytes = 0;
    for size in txn.conditions.iter().map(Condition::value_bytes) {
        at_most("size of a value in bytes", size, limits.value_bytes)?;
        bytes += size;
    }
    for key in conditions.chain(txn.operations.iter().map(Operation::key)) {
        if key.is_empty() {
            return Err(StoreError::InvalidRequest("a key is empty".to_owned()));
        }
        at_most("size of a key in bytes", key.len(), limits.key_bytes)?;
        bytes += key.len();
    }
    let mut keys = HashSet::with_capacity(txn.operations.len());
    for operation in &txn.operations {
        if !keys.insert(operation.key()) {
            return Err(StoreError::InvalidRequest(format!(
                "two operations of a transaction name the key \"{}\"",
                operation.key().escape_ascii()
            )));
        }
        if let Operation::Put { value, .. } = operation {
            at_most("size of a value in bytes", value.len(), limits.value_bytes)?;
            bytes += value.len();
        }
    }
    at_most("size of a transaction in bytes", bytes, limits.txn_bytes)
}

/// Refuses leases that would end at once.
pub(crate) fn check_ttl(ttl: Duration) -> Result<()> {
    if ttl < Duration::from_secs(1) {
        return Err(StoreError::InvalidRequest(format!("a lease lasts at least 1 s, asked for {ttl:?}")));
    }
    Ok(())
}
