//! Metrics and spans of the server's own controllers, in the same families as those of other controllers.

use std::fmt::Display;
use std::hash::Hash;

use evroc_metrics::controllers::{End, Reconciliations, Waiting};
use evroc_metrics::span;
use tracing::{Instrument, field};

/// The queue and the reconciliations of a controller with keys.
pub(crate) struct Measured<K> {
    waiting: Waiting<K>,
    runs: Reconciliations,
}

impl<K: Hash + Eq> Measured<K> {
    /// Those of a controller by the name of its identity.
    pub(crate) fn of(controller: &str) -> Self {
        Self { waiting: Waiting::of(controller.into()), runs: Reconciliations::of(controller.into()) }
    }

    /// A key is to be reconciled.
    pub(crate) fn wake(&self, key: K) {
        self.waiting.add(key);
    }

    /// Measures the reconciliation of a key, which is shown as `name`.
    pub(crate) async fn run<T>(
        &self,
        key: &K,
        name: impl Display,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        self.waiting.take(key);
        run(&self.runs, name, work).await
    }
}

/// Measures a reconciliation; `name` is what it is about.
pub(crate) async fn run<T>(
    runs: &Reconciliations,
    name: impl Display,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let controller = runs.controller();
    let span = span!(
        "reconcile",
        otel.name = format_args!("reconcile {controller}"),
        otel.status_code = field::Empty,
        controller,
        name = field::display(name),
        result = field::Empty,
        error = field::Empty,
    );
    let work = work.instrument(span.clone());
    runs.measure(work, |result| {
        let end = match result {
            Ok(_) => End::Success,
            Err(problem) => {
                span.record("otel.status_code", "ERROR").record("error", problem);
                End::Error
            }
        };
        span.record("result", end.word());
        end
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evroc_metrics::Registry;
    use evroc_metrics::read::read;
    use evroc_store::EmbeddedStore;
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::background::send::send;
    use crate::http::authz::GroupAuthorizer;
    use crate::http::server::ApiServer;
    use crate::object::identity::Identity;

    fn value(name: &str, label: &str) -> f64 {
        let samples = read(&Registry::process().text()).expect("OpenMetrics");
        let is_it =
            |it: &&evroc_metrics::read::Sample| it.name == name && it.labels.values().any(|value| value == label);
        samples.iter().filter(is_it).map(|it| it.value).sum()
    }

    #[tokio::test]
    async fn keys_wait_and_failures_are_counted() {
        const NAME: &str = "a-test-of-measures";
        let measured = Measured::of(NAME);
        measured.wake("a");
        measured.wake("a");
        measured.wake("b");
        assert_eq!((value("workqueue_depth", NAME), value("workqueue_adds_total", NAME)), (2.0, 2.0));
        assert_eq!(measured.run(&"a", "a", async { Ok(1) }).await, Ok(1));
        assert_eq!(measured.run(&"b", "b", async { Err::<(), _>("no".into()) }).await, Err("no".into()));
        assert_eq!(value("workqueue_depth", NAME), 0.0);
        assert_eq!(value("workqueue_queue_duration_seconds_count", NAME), 2.0);
        assert_eq!(value("controller_runtime_reconcile_time_seconds_count", NAME), 2.0);
        assert_eq!(value("controller_runtime_reconcile_errors_total", NAME), 1.0);
        assert_eq!(value("controller_runtime_reconcile_total", NAME), 2.0);
    }

    /// Lets the server's controllers work until `is_done`.
    async fn until(what: &str, is_done: impl Fn() -> bool) {
        let waiting = async {
            while !is_done() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn each_of_the_servers_controllers_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(dir.path()).await.unwrap());
        let authorizer = Arc::new(GroupAuthorizer { unlimited: vec!["system:controllers".into()] });
        let server = ApiServer::builder(store).authorizer(authorizer).start().await.unwrap();
        let service = server.service_as(Identity::controller("test"));
        let post = async |path: &str, body: serde_json::Value| {
            let (code, answer) = send(&service, Method::POST, path, "application/json", &body).await.unwrap();
            assert_eq!(code, 201, "{answer}");
        };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}});
        post("/api/v1/namespaces", namespace).await;
        let owner = json!({"apiVersion": "v1", "kind": "Namespace", "name": "gone", "uid": "gone"});
        let event =
            json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "orphan", "ownerReferences": [owner]}});
        post("/api/v1/namespaces/demo/events", event).await;
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": {"count/events": "5"}}});
        post("/api/v1/namespaces/demo/resourcequotas", quota).await;
        let deleted = send(&service, Method::DELETE, "/api/v1/namespaces/demo", "application/json", &json!({})).await;
        assert_eq!(deleted.unwrap().0, 200);
        for controller in ["garbage-collector", "namespaces", "quota"] {
            let is_done = || {
                value("controller_runtime_reconcile_total", controller) >= 1.0
                    && value("workqueue_adds_total", controller) >= 1.0
                    && value("workqueue_queue_duration_seconds_count", controller) >= 1.0
                    && value("workqueue_depth", controller) == 0.0
            };
            until(controller, is_done).await;
        }
        until("expiry", || value("controller_runtime_reconcile_time_seconds_count", "expiry") >= 1.0).await;
        server.shut_down();
    }
}
