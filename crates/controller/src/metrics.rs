//! The metrics and spans of the controllers that this crate runs.

use std::sync::Arc;

use evroc_metrics::controllers::{self, End, Reconciliations};
use evroc_metrics::{Text, span};
use futures::FutureExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tracing::{Instrument, Span, field};

use crate::Result;

/// The metrics of the reconciliations of one kind.
#[derive(Clone)]
pub(crate) struct Measured(Reconciliations);

/// The name of the controller of a kind.
fn name_of<K: Resource<DynamicType = ()>>() -> Text {
    K::kind(&()).to_lowercase().into()
}

impl Measured {
    pub(crate) fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self(Reconciliations::of(name_of::<K>()))
    }

    /// A span for the reconciliation of a key.
    pub(crate) fn span(&self, key: &ObjectMeta) -> Span {
        let controller = self.0.controller();
        span!(
            "reconcile",
            otel.name = format_args!("reconcile {controller}"),
            otel.status_code = field::Empty,
            controller,
            namespace = key.namespace,
            name = key.name,
            result = field::Empty,
            error = field::Empty,
        )
    }

    /// Measures one reconciliation; one that is dropped before its end counts for nothing. Its span has its end noted.
    pub(crate) async fn reconcile(self, span: Span, work: impl Future<Output = Result<Action>>) -> Result<Action> {
        let work = work.instrument(span.clone());
        self.0
            .measure(work, |result| {
                let end = match result {
                    Ok(action) if *action == Action::await_change() => End::Success,
                    Ok(_) => End::RequeueAfter,
                    Err(error) => {
                        span.record("otel.status_code", "ERROR").record("error", field::display(error));
                        End::Error
                    }
                };
                span.record("result", end.word());
                end
            })
            .await
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

/// The keys of a queue that wait, by namespace and name.
pub(crate) struct Waiting(controllers::Waiting<(Option<String>, String)>);

impl Waiting {
    pub(crate) fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self(controllers::Waiting::of(name_of::<K>()))
    }

    /// A key was woken. One that waits already goes on waiting.
    pub(crate) fn add<K: Resource<DynamicType = ()>>(&self, key: &ObjectRef<K>) {
        self.0.add((key.namespace.clone(), key.name.clone()));
    }

    /// The reconciliation of a key begins, or there is nothing to reconcile.
    pub(crate) fn take(&self, namespace: Option<&str>, name: &str) {
        self.0.take(&(namespace.map(str::to_owned), name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use evroc_metrics::Registry;
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
