//! Quotas on the number of objects of a kind in a namespace (`count/<plural>.<group>`), and on what objects take together
//! (`requests.memory`, `requests.storage`; see [`super::ledgers`]), as v1 ResourceQuota.
//!
//! A create counts the existing objects, and its transaction writes the ledger of that kind and namespace, which must be
//! unchanged since the count began: of two creates that saw the same number only one is committed, and the other counts again. So
//! concurrent creates never exceed a quota. Without a quota there is no ledger. A quota applies to creates that begin after it
//! was written; existing objects count, but are not touched.
//!
//! A controller writes `status.used` soon after, for information.

use serde_json::Value;

use crate::object::kind::ResourceKind;
use crate::object::registry::{GroupResource, Registered};
use crate::state::cache::{Cache, CacheError};
use crate::state::storage::claims::Ledger;

/// The resources that quotas limit beside numbers of objects, by Kubernetes' names: bytes that objects take from the ledger of their namespace.
pub(crate) const TAKEN: [&str; 2] = ["requests.memory", "requests.storage"];

/// The limit that a quota sets for one resource.
pub(crate) struct Allowance {
    /// The name of the quota.
    pub(crate) quota: String,
    /// The limit.
    pub(crate) limit: u64,
}

/// Returns the limits that the quotas of a namespace set for one resource; none if none limits it.
pub(crate) fn allowances(cache: &Cache, namespace: &str, resource: &str) -> Vec<Allowance> {
    if !cache.has(&storage()) {
        return vec![];
    }
    let quotas = cache.kind(&storage()).in_namespace(namespace);
    let allowances = quotas.iter().filter_map(|quota| {
        let limit = limit(&quota.parse(), resource)?;
        Some(Allowance { quota: quota.key.name().to_owned(), limit })
    });
    allowances.collect()
}

/// The reason why an object may not be created.
pub(crate) enum QuotaError {
    /// A quota would be exceeded; with Kubernetes' message.
    Exceeded(String),
    /// The cache does not reach the revision.
    Cache(CacheError),
}

/// Returns the storage of quotas.
pub(crate) fn storage() -> GroupResource {
    GroupResource { group: String::new(), resource: "resourcequotas".into() }
}

/// Returns the resource names with which a quota limits the objects of a kind.
pub(crate) fn names_of(storage: &GroupResource) -> Vec<String> {
    match storage.group.as_str() {
        "" => vec![format!("count/{}", storage.resource), storage.resource.clone()],
        group => vec![format!("count/{}.{group}", storage.resource)],
    }
}

fn ledger_name(namespace: &str, storage: &GroupResource) -> String {
    format!("quota/{namespace}/{}.{}", storage.resource, storage.group)
}

/// Returns the ledgers of the kinds that a quota limits; they are removed with it.
pub(crate) fn ledgers_of(cache: &Cache, quota: &Value) -> Vec<String> {
    let namespace = quota.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
    let limits = |storage: &GroupResource| names_of(storage).iter().any(|name| limit(quota, name).is_some());
    let kinds = cache.kinds().filter(|(registered, _)| limits(&registered.storage));
    kinds.map(|(registered, _)| ledger_name(namespace, &registered.storage)).collect()
}

/// Whether this is the kind ResourceQuota.
pub(crate) fn is_quota(kind: &ResourceKind) -> bool {
    kind.group.is_empty() && kind.plural == "resourcequotas"
}

/// Returns the limit that a quota sets for a resource name.
pub(crate) fn limit(quota: &Value, name: &str) -> Option<u64> {
    quota.pointer("/spec/hard")?.get(name).and_then(count)
}

/// Parses a non-negative integer in any form of a quantity.
pub(crate) fn count(quantity: &Value) -> Option<u64> {
    let text = match quantity {
        Value::Number(number) => return number.as_u64(),
        Value::String(text) => text.as_str(),
        _ => return None,
    };
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: u64 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Checks whether one more object is allowed. If a quota limits the kind, returns the ledger that must be unchanged when the
/// object is created.
pub(crate) async fn check(
    cache: &Cache,
    registered: &Registered,
    namespace: &str,
) -> Result<Option<Ledger>, QuotaError> {
    if namespace.is_empty() || !cache.has(&storage()) {
        return Ok(None);
    }
    let names = names_of(&registered.storage);
    let quotas = cache.kind(&storage()).in_namespace(namespace);
    let mut limits = Vec::new();
    for quota in &quotas {
        let object = quota.parse();
        limits.extend(names.iter().filter_map(|name| Some((quota.key.name().to_owned(), name, limit(&object, name)?))));
    }
    if limits.is_empty() {
        return Ok(None);
    }
    let ledger = ledger_name(namespace, &registered.storage);
    let written = cache.claim(&ledger).map(|held| held.revision);
    // The count must include every create that the ledger has recorded.
    if let Some(revision) = written {
        cache.wait_for(revision).await.map_err(QuotaError::Cache)?;
    }
    let used = cache.kind(&registered.storage).count_in(namespace) as u64;
    for (quota, name, limit) in limits {
        if used >= limit {
            return Err(QuotaError::Exceeded(format!(
                "exceeded quota: {quota}, requested: {name}=1, used: {name}={used}, limited: {name}={limit}"
            )));
        }
    }
    Ok(Some(Ledger { name: ledger, before: written.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counts_are_read_in_every_form() {
        for (quantity, expected) in [
            (json!(5), Some(5)),
            (json!("5"), Some(5)),
            (json!("2k"), Some(2_000)),
            (json!("1Ki"), Some(1_024)),
            (json!("2Ti"), Some(2 << 40)),
            (json!("0"), Some(0)),
            (json!("-1"), None),
            (json!("1.5"), None),
            (json!("5m"), None),
            (json!(""), None),
            (json!("99999999999999999999"), None),
        ] {
            assert_eq!(count(&quantity), expected, "{quantity}");
        }
    }
}
