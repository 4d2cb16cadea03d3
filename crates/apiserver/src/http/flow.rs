//! Flow control: limits concurrent requests per caller, so that one caller cannot starve others or the platform's controllers.
//!
//! Every caller has a number of slots. A request without a free slot waits for a while in a queue of limited length, and is then
//! refused (429). Watches and streams release their slot when their response begins. Groups of the platform itself are exempt.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::object::error::ApiError;
use crate::object::identity::Identity;

/// Limits per caller.
#[derive(Clone, Debug)]
pub struct FlowLimits {
    /// Requests of one caller that run at once. Fewer would slow programs that send in parallel, more would let one
    /// caller fill the store's queue.
    pub running: usize,
    /// Requests of one caller that wait. With more, they would wait longer than clients do.
    pub waiting: usize,
    /// How long a request waits.
    pub patience: Duration,
    /// Groups without limits.
    pub exempt_groups: Vec<String>,
}

impl Default for FlowLimits {
    fn default() -> Self {
        FlowLimits {
            running: 128,
            waiting: 1_024,
            patience: Duration::from_secs(15),
            exempt_groups: ["system:controllers", "system:nodes", "system:edges"].map(str::to_owned).to_vec(),
        }
    }
}

struct Caller {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The slots of all callers.
pub(crate) struct Flow {
    limits: FlowLimits,
    callers: Mutex<HashMap<String, Arc<Caller>>>,
}

/// A slot, released when dropped; `None` for exempt callers.
pub(crate) type Place = Option<OwnedSemaphorePermit>;

/// The number of remembered callers above which those without requests are dropped.
const REMEMBERED: usize = 4_096;

impl Flow {
    pub(crate) fn new(limits: FlowLimits) -> Self {
        Flow { limits, callers: Mutex::default() }
    }

    fn caller(&self, user: &str) -> Arc<Caller> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= REMEMBERED {
            let running = self.limits.running;
            callers.retain(|_, it| it.places.available_permits() < running);
        }
        let new = || {
            let places = Arc::new(Semaphore::new(self.limits.running));
            Arc::new(Caller { places, waiting: AtomicUsize::new(0) })
        };
        callers.entry(user.to_owned()).or_insert_with(new).clone()
    }

    /// Waits for a slot.
    ///
    /// # Errors
    /// 429 if too many wait already, or for too long.
    pub(crate) async fn enter(&self, identity: &Identity) -> Result<Place, ApiError> {
        if self.limits.exempt_groups.iter().any(|group| identity.is_in(group)) {
            return Ok(None);
        }
        let caller = self.caller(&identity.user);
        if let Ok(place) = caller.places.clone().try_acquire_owned() {
            return Ok(Some(place));
        }
        let refuse = || ApiError::too_many_requests("too many requests, please try again later");
        let waiting = Waiting::begin(&caller.waiting);
        if waiting.before >= self.limits.waiting {
            return Err(refuse());
        }
        match tokio::time::timeout(self.limits.patience, caller.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Some(place)),
            _ => Err(refuse()),
        }
    }
}

/// Counts a waiting request until dropped, also if its client disconnects.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        Waiting { before: count.fetch_add(1, Ordering::Relaxed), count }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow::new(FlowLimits { running: 2, waiting: 1, patience: Duration::from_millis(20), ..FlowLimits::default() })
    }

    #[tokio::test]
    async fn a_caller_has_places_of_their_own() {
        let flow = flow();
        let (one, two) = (Identity::new("one", ["people"]), Identity::new("two", ["people"]));
        let first = flow.enter(&one).await.unwrap();
        let _second = flow.enter(&one).await.unwrap();
        assert_eq!(flow.enter(&one).await.unwrap_err().code, 429);
        assert!(flow.enter(&two).await.is_ok(), "others are not concerned");
        let (waited, ()) = tokio::join!(flow.enter(&one), async { drop(first) });
        assert!(waited.is_ok(), "a place that becomes free is given to who waits");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_the_platform_is_exempt() {
        let flow = flow();
        let one = Identity::new("one", ["people"]);
        let _places = (flow.enter(&one).await.unwrap(), flow.enter(&one).await.unwrap());
        let (first, second) = tokio::join!(flow.enter(&one), flow.enter(&one));
        assert!(first.is_err() && second.is_err());
        for _ in 0..10 {
            assert!(flow.enter(&Identity::controller("it")).await.unwrap().is_none());
        }
    }
}
