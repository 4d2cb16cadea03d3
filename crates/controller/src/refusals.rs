//! Remembers which objects' children the API refused for good, so that a permanent error is reported and not repeated.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Resource;

/// After how long a refused write is tried once more. Too low fills the log; too high keeps a user waiting if the cause was not the object
/// itself, for example a rule of the API that was changed by an upgrade.
const TRY_AGAIN: Duration = Duration::from_secs(300);

/// Refusals by the uid of the object that they concern. A change of its spec clears its refusal.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<String, Refusal>>);

#[derive(Debug)]
struct Refusal {
    generation: Option<i64>,
    since: Timestamp,
    message: String,
}

impl Refusals {
    /// The refusal that still holds for an object.
    pub fn of(&self, object: &impl Resource, now: Timestamp) -> Option<String> {
        let mut refusals = self.lock();
        let uid = object.meta().uid.as_deref()?;
        let refusal = refusals.get(uid)?;
        let age = now.duration_since(refusal.since).unsigned_abs();
        if refusal.generation == object.meta().generation && age < TRY_AGAIN {
            return Some(refusal.message.clone());
        }
        refusals.remove(uid);
        None
    }

    /// Remembers a refusal; returns after how long to try again.
    pub fn remember(&self, object: &impl Resource, message: &str, now: Timestamp) -> Duration {
        let mut refusals = self.lock();
        // Objects that were deleted meanwhile are forgotten here.
        refusals.retain(|_, refusal| now.duration_since(refusal.since).unsigned_abs() < TRY_AGAIN);
        if let Some(uid) = &object.meta().uid {
            let refusal = Refusal { generation: object.meta().generation, since: now, message: message.to_owned() };
            refusals.insert(uid.clone(), refusal);
        }
        TRY_AGAIN
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Namespace;

    #[test]
    fn a_refusal_holds_until_the_spec_changes_or_its_time_is_over() {
        let refusals = Refusals::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut object = Namespace::default();
        object.metadata.uid = Some("a".into());
        object.metadata.generation = Some(1);
        assert_eq!(refusals.of(&object, at(0)), None);
        let pause = refusals.remember(&object, "too long", at(0));
        assert_eq!(refusals.of(&object, at(10)).as_deref(), Some("too long"));
        assert_eq!(refusals.of(&object, at(i64::try_from(pause.as_secs()).unwrap())), None, "tried once more");
        refusals.remember(&object, "too long", at(0));
        object.metadata.generation = Some(2);
        assert_eq!(refusals.of(&object, at(10)), None, "another spec");
    }
}
