//! Reports what a terminating namespace waits for, in Kubernetes' conditions. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Objects of one kind that still exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remaining {
    pub(super) kind: String,
    pub(super) count: usize,
    pub(super) finalizers: BTreeMap<String, usize>,
}

/// Returns the conditions; a transition time changes only with the status.
pub(super) fn conditions(old: Option<&Value>, remaining: &[Remaining], now: &str) -> Value {
    let kinds: Vec<String> =
        remaining.iter().map(|it| format!("{} has {} resource instances", it.kind, it.count)).collect();
    let mut by_finalizer: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in remaining.iter().flat_map(|it| &it.finalizers) {
        *by_finalizer.entry(finalizer).or_default() += count;
    }
    let finalizers: Vec<String> =
        by_finalizer.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
    let mut out = vec![condition(
        old,
        "NamespaceContentRemaining",
        !kinds.is_empty(),
        "SomeResourcesRemain",
        "ContentRemoved",
        &format!("Some resources are remaining: {}", kinds.join(", ")),
        "All content successfully removed",
        now,
    )];
    out.push(condition(
        old,
        "NamespaceFinalizersRemaining",
        !finalizers.is_empty(),
        "SomeFinalizersRemain",
        "ContentHasNoFinalizers",
        &format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", ")),
        "All content-preserving finalizers finished",
        now,
    ));
    Value::Array(out)
}

#[allow(clippy::too_many_arguments)]
fn condition(
    old: Option<&Value>,
    name: &str,
    is_true: bool,
    reason_true: &str,
    reason_false: &str,
    message_true: &str,
    message_false: &str,
    now: &str,
) -> Value {
    let status = if is_true { "True" } else { "False" };
    let before = old.and_then(Value::as_array).into_iter().flatten().find(|it| it["type"] == name);
    let since =
        before.filter(|it| it["status"] == status).and_then(|it| it["lastTransitionTime"].as_str()).unwrap_or(now);
    json!({
        "type": name,
        "status": status,
        "lastTransitionTime": since,
        "reason": if is_true { reason_true } else { reason_false },
        "message": if is_true { message_true } else { message_false },
    })
}
