//! Conditions as Kubernetes means them: one entry a type, the transition time moves only when the status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The type of the condition that every client waits for.
pub const READY: &str = "Ready";

/// The value of a condition as a controller reports it; `status` is `True`, `False` or `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// CamelCase, never empty.
    pub reason: String,
    /// For people; names the blocking object.
    pub message: String,
}

impl Verdict {
    /// The condition holds.
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self { status: "True", reason: reason.into(), message: message.into() }
    }
    /// The condition does not hold.
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self { status: "False", reason: reason.into(), message: message.into() }
    }
    /// It cannot be known.
    pub fn unknown(reason: &str, message: impl Into<String>) -> Self {
        Self { status: "Unknown", reason: reason.into(), message: message.into() }
    }
}

/// The longest message of a condition, in bytes, as in Kubernetes' own kinds (`metav1.Condition`). An object that is too large is
/// refused, and its status would never be written.
pub const MAX_MESSAGE: usize = 32 << 10;

/// The message, or its beginning where it is too long.
fn clipped(message: &str) -> String {
    const ELLIPSIS: &str = "…";
    if message.len() <= MAX_MESSAGE {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MAX_MESSAGE - ELLIPSIS.len());
    format!("{}{ELLIPSIS}", &message[..end])
}

/// Sets the condition of type `kind`; the transition time changes only with the status.
pub fn set(conditions: &mut Vec<Condition>, kind: &str, verdict: &Verdict, generation: Option<i64>, now: Timestamp) {
    let since = match get(conditions, kind) {
        Some(old) if old.status == verdict.status => old.last_transition_time.clone(),
        _ => Time(now),
    };
    let new = Condition {
        type_: kind.into(),
        status: verdict.status.into(),
        reason: verdict.reason.clone(),
        message: clipped(&verdict.message),
        last_transition_time: since,
        observed_generation: generation,
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(slot) => *slot = new,
        None => conditions.push(new),
    }
}

/// The condition of type `kind`.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Whether the condition of type `kind` is `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_clipped() {
        let mut conditions = Vec::new();
        set(&mut conditions, READY, &Verdict::no("Long", "é".repeat(MAX_MESSAGE)), None, Timestamp::UNIX_EPOCH);
        let message = &conditions[0].message;
        assert!(message.len() <= MAX_MESSAGE && message.len() > MAX_MESSAGE - 4 && message.ends_with("é…"));
    }
}
