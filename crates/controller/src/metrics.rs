//! The metrics of every controller of this process, with the names of Kubernetes' controllers.
//!
//! `workqueue_*` is known of a [`crate::Queue`]: a key waits from the moment when something wakes it until its reconciliation begins. A key
//! that is to be looked at again after some time does not wait meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use evroc_metrics::{Counter, Counters, Gauge, Gauges, Held, Histogram, Histograms, Registry, Text, buckets};
use evroc_metrics::{labels, span, words};
use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use tracing::{Instrument, Span, field};

use crate::Result;

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
    enum End {
        Success = "success",
        RequeueAfter = "requeue_after",
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

/// The metrics of the reconciliations of one kind.
#[derive(Clone)]
pub(crate) struct Measured {
    controller: Text,
    success: Counter,
    requeue_after: Counter,
    error: Counter,
    errors: Counter,
    seconds: Histogram,
    workers: Gauge,
}

/// The name of the controller of a kind.
fn name_of<K: Resource<DynamicType = ()>>() -> Text {
    K::kind(&()).to_lowercase().into()
}

impl Measured {
    pub(crate) fn of<K: Resource<DynamicType = ()>>() -> Self {
        let controller = name_of::<K>();
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

    /// A span for the reconciliation of a key.
    pub(crate) fn span(&self, key: &ObjectMeta) -> Span {
        let controller = self.controller.as_str();
        let span = span!(
            "reconcile",
            otel.name = field::Empty,
            otel.status_code = field::Empty,
            controller,
            namespace = key.namespace,
            name = key.name,
            result = field::Empty,
            error = field::Empty,
        );
        if !span.is_disabled() {
            span.record("otel.name", format!("reconcile {controller}"));
        }
        span
    }

    /// Measures one reconciliation; one that is dropped before its end counts for nothing. Its span has its end noted.
    pub(crate) async fn reconcile(self, span: Span, work: impl Future<Output = Result<Action>>) -> Result<Action> {
        let _held = Held::new(self.workers.clone());
        let begun = Instant::now();
        let result = work.instrument(span.clone()).await;
        self.seconds.observe(begun.elapsed().as_secs_f64());
        let end = match &result {
            Ok(action) if *action == Action::await_change() => End::Success,
            Ok(_) => End::RequeueAfter,
            Err(error) => {
                span.record("otel.status_code", "ERROR").record("error", field::display(error));
                self.errors.inc();
                End::Error
            }
        };
        span.record("result", end.word());
        match end {
            End::Success => self.success.inc(),
            End::RequeueAfter => self.requeue_after.inc(),
            End::Error => self.error.inc(),
        };
        result
    }
}

/// Measures the reconciliations of a controller that is not a [`crate::Queue`].
pub fn measured<K, C, F>(
    reconcile: impl Fn(Arc<K>, Arc<C>) -> F,
) -> impl Fn(Arc<K>, Arc<C>) -> futures::future::BoxFuture<'static, Result<Action>>
where
    K: Resource<DynamicType = ()>,
    F: Future<Output = Result<Action>> + Send + 'static,
{
    let measured = Measured::of::<K>();
    move |object, context| {
        let span = measured.span(object.meta());
        measured.clone().reconcile(span, reconcile(object, context)).boxed()
    }
}

/// Namespace and name.
type Key = (Option<String>, String);

/// The keys of a queue that wait, and since when.
pub(crate) struct Waiting {
    since: Mutex<HashMap<Key, Instant>>,
    depth: Gauge,
    adds: Counter,
    waited: Histogram,
}

impl Waiting {
    pub(crate) fn of<K: Resource<DynamicType = ()>>() -> Self {
        let of = QueueOf { name: name_of::<K>() };
        Self {
            since: Mutex::default(),
            depth: FAMILIES.depth.get_or_create_owned(&of),
            adds: FAMILIES.adds.get_or_create_owned(&of),
            waited: FAMILIES.waited.get_or_create_owned(&of),
        }
    }

    fn since(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key was woken. One that waits already goes on waiting.
    pub(crate) fn add<K: Resource<DynamicType = ()>>(&self, key: &ObjectRef<K>) {
        let is_new = match self.since().entry((key.namespace.clone(), key.name.clone())) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
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
    pub(crate) fn take(&self, namespace: Option<&str>, name: &str) {
        let since = self.since().remove(&(namespace.map(str::to_owned), name.to_owned()));
        if let Some(since) = since {
            self.depth.dec();
            self.waited.observe(since.elapsed().as_secs_f64());
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.depth.dec_by(i64::try_from(self.since().len()).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use evroc_metrics::read::read;
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;
    use crate::Error;

    fn value(name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = read(&Registry::process().text()).expect("OpenMetrics");
        let is_it = |it: &&evroc_metrics::read::Sample| {
            it.name == name && labels.iter().all(|(key, value)| it.labels.get(*key).is_some_and(|is| is == value))
        };
        samples.iter().find(is_it).map_or(0.0, |it| it.value)
    }

    #[tokio::test]
    async fn a_key_waits_until_it_is_reconciled_and_ends_are_counted() {
        const NAME: [(&str, &str); 1] = [("name", "namespace")];
        let waiting = Waiting::of::<Namespace>();
        waiting.add(&ObjectRef::<Namespace>::new("a"));
        waiting.add(&ObjectRef::<Namespace>::new("a"));
        waiting.add(&ObjectRef::<Namespace>::new("b"));
        assert_eq!((value("workqueue_depth", &NAME), value("workqueue_adds_total", &NAME)), (2.0, 2.0));
        waiting.take(None, "a");
        waiting.take(None, "a");
        assert_eq!(value("workqueue_depth", &NAME), 1.0);
        assert_eq!(value("workqueue_queue_duration_seconds_count", &NAME), 1.0);
        drop(waiting);
        assert_eq!(value("workqueue_depth", &NAME), 0.0, "a queue that ends has no keys");

        let measured = Measured::of::<Namespace>();
        let again = Action::requeue(std::time::Duration::from_secs(1));
        let span = Span::none;
        measured.clone().reconcile(span(), async { Ok(Action::await_change()) }).await.expect("good");
        measured.clone().reconcile(span(), async { Ok(again) }).await.expect("good");
        assert!(measured.reconcile(span(), async { Err(Error::Changed("x".into())) }).await.is_err());
        for result in ["success", "requeue_after", "error"] {
            let labels = [("controller", "namespace"), ("result", result)];
            assert_eq!(value("controller_runtime_reconcile_total", &labels), 1.0, "{result}");
        }
        let controller = [("controller", "namespace")];
        assert_eq!(value("controller_runtime_reconcile_errors_total", &controller), 1.0);
        assert_eq!(value("controller_runtime_reconcile_time_seconds_count", &controller), 3.0);
        assert_eq!(value("controller_runtime_active_workers", &controller), 0.0);
    }
}
