//! Flow control: limits concurrent requests per caller, so that one caller cannot starve others or the platform's controllers.
//!
//! Every caller has a number of slots. A request without a free slot waits for a while in a queue of limited length, and is then
//! refused (429). Watches and streams release their slot when their response begins. Groups of the platform itself
//! have more slots.

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
    /// Groups of the platform itself.
    pub platform_groups: Vec<String>,
    /// Requests of one member of those groups that run at once, and as many wait. More than a working program needs, and few enough that
    /// one in a loop leaves others their turn.
    pub platform_running: usize,
}

impl Default for FlowLimits {
    fn default() -> Self {
        FlowLimits {
            running: 128,
            waiting: 1_024,
            patience: Duration::from_secs(15),
            platform_groups: ["system:controllers", "system:nodes", "system:edges"].map(str::to_owned).to_vec(),
            platform_running: 1_024,
        }
    }
}

struct Caller {
    running: usize,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The slots of all callers.
pub(crate) struct Flow {
    limits: FlowLimits,
    callers: Mutex<HashMap<String, Arc<Caller>>>,
}

/// A slot, released when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// The number of remembered callers above which those without requests are dropped.
const REMEMBERED: usize = 4_096;

evroc_metrics::words! {
    /// Why a request got no slot.
    pub(crate) enum Rejection {
        /// Too many requests of the caller waited.
        QueueFull = "queue-full",
        /// The request waited for too long.
        TimeOut = "time-out",
    }
}

impl From<Rejection> for ApiError {
    fn from(_: Rejection) -> Self {
        ApiError::too_many_requests("too many requests, please try again later")
    }
}

impl Flow {
    pub(crate) fn new(limits: FlowLimits) -> Self {
        Flow { limits, callers: Mutex::default() }
    }

    fn caller(&self, user: &str, running: usize) -> Arc<Caller> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= REMEMBERED {
            callers.retain(|_, it| it.places.available_permits() < it.running);
        }
        let new = || {
            let places = Arc::new(Semaphore::new(running));
            Arc::new(Caller { running, places, waiting: AtomicUsize::new(0) })
        };
        callers.entry(user.to_owned()).or_insert_with(new).clone()
    }

    /// Waits for a slot.
    ///
    /// # Errors
    /// If too many wait already, or for too long.
    pub(crate) async fn enter(&self, identity: &Identity) -> Result<Place, Rejection> {
        let is_platform = self.limits.platform_groups.iter().any(|group| identity.is_in(group));
        let limits = (self.limits.platform_running, self.limits.platform_running.max(self.limits.waiting));
        let (running, longest) = if is_platform { limits } else { (self.limits.running, self.limits.waiting) };
        let caller = self.caller(&identity.user, running);
        if let Ok(place) = caller.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let waiting = Waiting::begin(&caller.waiting);
        if waiting.before >= longest {
            return Err(Rejection::QueueFull);
        }
        match tokio::time::timeout(self.limits.patience, caller.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Rejection::TimeOut),
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
        let patience = Duration::from_millis(20);
        Flow::new(FlowLimits { running: 2, waiting: 1, patience, platform_running: 10, ..FlowLimits::default() })
    }

    #[tokio::test]
    async fn a_caller_has_places_of_their_own() {
        let flow = flow();
        let (one, two) = (Identity::new("one", ["people"]), Identity::new("two", ["people"]));
        let first = flow.enter(&one).await.unwrap();
        let _second = flow.enter(&one).await.unwrap();
        assert_eq!(flow.enter(&one).await.unwrap_err(), Rejection::TimeOut);
        assert!(flow.enter(&two).await.is_ok(), "others are not concerned");
        let (waited, ()) = tokio::join!(flow.enter(&one), async { drop(first) });
        assert!(waited.is_ok(), "a place that becomes free is given to who waits");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_the_platform_has_more_places_but_not_any_number() {
        let flow = flow();
        let one = Identity::new("one", ["people"]);
        let _places = (flow.enter(&one).await.unwrap(), flow.enter(&one).await.unwrap());
        let (first, second) = tokio::join!(flow.enter(&one), flow.enter(&one));
        assert_eq!((first.err(), second.err()), (Some(Rejection::TimeOut), Some(Rejection::QueueFull)));
        assert_eq!(ApiError::from(Rejection::QueueFull).code, 429);
        let controller = Identity::controller("it");
        let held = futures::future::join_all((0..10).map(|_| flow.enter(&controller))).await;
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(
            flow.enter(&controller).await.unwrap_err(),
            Rejection::TimeOut,
            "a loop of the platform's own is bounded"
        );
    }
}
