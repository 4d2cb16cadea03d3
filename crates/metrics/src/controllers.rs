//! The metrics of every controller of this process, with the names of Kubernetes' controllers.
//!
//! `workqueue_*` is known of a controller with keys: a key waits from the moment when something wakes it until its reconciliation begins. A
//! key that is to be looked at again after some time does not wait meanwhile.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::{Counter, Counters, Gauge, Gauges, Held, Histogram, Histograms, Registry, Text, buckets};
use crate::{labels, words};

labels! {
    struct Of {
        controller: Text,
    }
}

labels! {
    struct QueueOf {
        name: Text,
    }
}

labels! {
    struct EndOf {
        controller: Text,
        result: End,
    }
}

words! {
    /// The end of a reconciliation.
    pub enum End {
        /// There is nothing to do until something changes.
        Success = "success",
        /// It is to be looked at again after some time.
        RequeueAfter = "requeue_after",
        /// It failed and is tried again.
        Error = "error",
    }
}

struct Families {
    ends: Counters<EndOf>,
    errors: Counters<Of>,
    seconds: Histograms<Of>,
    workers: Gauges<Of>,
    depth: Gauges<QueueOf>,
    adds: Counters<QueueOf>,
    waited: Histograms<QueueOf>,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let all = Registry::process();
    Families {
        ends: all.counters("controller_runtime_reconcile", "Reconciliations, by their end"),
        errors: all.counters("controller_runtime_reconcile_errors", "Reconciliations that failed and are tried again"),
        seconds: all.histograms(
            "controller_runtime_reconcile_time_seconds",
            "Time of a reconciliation, in seconds",
            buckets::work,
        ),
        workers: all.gauges("controller_runtime_active_workers", "Reconciliations that are under way"),
        depth: all.gauges("workqueue_depth", "Keys that wait for a reconciliation"),
        adds: all.counters("workqueue_adds", "Keys that were put into the queue"),
        waited: all.histograms("workqueue_queue_duration_seconds", "Time that a key waited, in seconds", buckets::work),
    }
});

/// The metrics of the reconciliations of a controller.
#[derive(Clone)]
pub struct Reconciliations {
    controller: Text,
    success: Counter,
    requeue_after: Counter,
    error: Counter,
    errors: Counter,
    seconds: Histogram,
    workers: Gauge,
}

impl Reconciliations {
    /// Those of the controller with this name, of which a process has a fixed number.
    pub fn of(controller: Text) -> Self {
        let end = |result| FAMILIES.ends.get_or_create_owned(&EndOf { controller: controller.clone(), result });
        let of = Of { controller: controller.clone() };
        Self {
            success: end(End::Success),
            requeue_after: end(End::RequeueAfter),
            error: end(End::Error),
            errors: FAMILIES.errors.get_or_create_owned(&of),
            seconds: FAMILIES.seconds.get_or_create_owned(&of),
            workers: FAMILIES.workers.get_or_create_owned(&of),
            controller,
        }
    }

    /// The controller's name.
    pub fn controller(&self) -> &str {
        self.controller.as_str()
    }

    /// Measures one reconciliation, whose end `end` tells; one that is dropped before its end counts for nothing.
    pub async fn measure<T>(&self, work: impl Future<Output = T>, end: impl FnOnce(&T) -> End) -> T {
        let _held = Held::new(self.workers.clone());
        let begun = Instant::now();
        let result = work.await;
        self.seconds.observe(begun.elapsed().as_secs_f64());
        match end(&result) {
            End::Success => self.success.inc(),
            End::RequeueAfter => self.requeue_after.inc(),
            End::Error => {
                self.errors.inc();
                self.error.inc()
            }
        };
        result
    }
}

/// The keys of a queue that wait, and since when.
pub struct Waiting<K> {
    since: Mutex<HashMap<K, Instant>>,
    depth: Gauge,
    adds: Counter,
    waited: Histogram,
}

impl<K: Hash + Eq> Waiting<K> {
    /// Those of the controller with this name.
    pub fn of(name: Text) -> Self {
        let of = QueueOf { name };
        Self {
            since: Mutex::default(),
            depth: FAMILIES.depth.get_or_create_owned(&of),
            adds: FAMILIES.adds.get_or_create_owned(&of),
            waited: FAMILIES.waited.get_or_create_owned(&of),
        }
    }

    fn since(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key was woken. One that waits already goes on waiting.
    pub fn add(&self, key: K) {
        let is_new = match self.since().entry(key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(Instant::now());
                true
            }
        };
        if is_new {
            self.depth.inc();
            self.adds.inc();
        }
    }

    /// The reconciliation of a key begins, or there is nothing to reconcile.
    pub fn take(&self, key: &K) {
        let since = self.since().remove(key);
        if let Some(since) = since {
            self.depth.dec();
            self.waited.observe(since.elapsed().as_secs_f64());
        }
    }
}

impl<K> Drop for Waiting<K> {
    fn drop(&mut self) {
        let left = self.since.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        self.depth.dec_by(i64::try_from(left).unwrap_or(0));
    }
}
