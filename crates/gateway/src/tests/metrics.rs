//! The metrics of services, and that they end with them.

use evroc_metrics::read::{Sample, read};
use serde_json::json;

use super::*;
use crate::table::Routed;

fn samples(registry: &Registry) -> Vec<Sample> {
    read(&registry.text()).expect("OpenMetrics")
}

fn value(registry: &Registry, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |sample: &Sample| labels.iter().all(|(key, is)| sample.labels.get(*key).is_some_and(|it| it == is));
    samples(registry).iter().find(|sample| sample.name == name && has(sample)).map(|sample| sample.value)
}

fn hello() -> Container {
    http(async |request| {
        let code = if request.uri().path() == "/bad" { 500 } else { 200 };
        Response::builder().status(code).body(text("hello")).unwrap()
    })
}

impl World {
    fn measured(&self) {
        let service = self.gateway.metrics().service("demo", "a");
        self.table.set(HOST, Some(Routed { route: Route::To(key("a-1")), service: Some(service) }));
    }
}

#[test]
fn requests_are_counted_for_their_service_and_cold_starts_once() {
    time::run(async {
        let world = Arc::new(World::new());
        world.measured();
        let service = [("namespace", "demo"), ("service", "a")];
        let of = |name: &str| value(&world.registry, name, &service);
        let class = |class| value(&world.registry, "evroc_gateway_requests_total", &[("response_code_class", class)]);
        let asked: Vec<_> = (0..3)
            .map(|_| {
                let world = world.clone();
                tokio::spawn(async move { world.ask(get("/")).await })
            })
            .collect();
        time::pass(Duration::from_secs(7)).await;
        assert_eq!(of("evroc_gateway_requests_waiting"), Some(3.0));
        world.start("r", hello());
        for answer in asked {
            assert_eq!(answer.await.unwrap().0, 200);
        }
        assert_eq!(world.ask(get("/bad")).await.0, 500);
        settled().await;
        assert_eq!((class("2xx"), class("5xx"), class("4xx")), (Some(3.0), Some(1.0), Some(0.0)));
        assert_eq!(of("evroc_gateway_request_duration_seconds_count"), Some(4.0));
        assert_eq!(of("evroc_gateway_cold_starts_total"), Some(1.0), "three waited for one start");
        let took = of("evroc_gateway_cold_start_duration_seconds_sum").unwrap();
        assert!((7.0..8.0).contains(&took), "{took}");
        assert_eq!(
            (of("evroc_gateway_requests_waiting"), of("evroc_gateway_requests_in_flight")),
            (Some(0.0), Some(0.0))
        );
        assert_eq!(of("evroc_gateway_replicas"), Some(1.0));
    });
}

#[test]
fn clients_that_leave_are_no_cold_start() {
    time::run(async {
        let world = Arc::new(World::new());
        world.measured();
        let leaving = tokio::spawn({
            let world = world.clone();
            async move { world.ask(get("/")).await }
        });
        time::pass(Duration::from_secs(5)).await;
        leaving.abort();
        time::pass(Duration::from_secs(100)).await;
        let asking = tokio::spawn({
            let world = world.clone();
            async move { world.ask(get("/")).await }
        });
        time::pass(Duration::from_secs(2)).await;
        world.start("r", hello());
        assert_eq!(asking.await.unwrap().0, 200);
        let took = value(&world.registry, "evroc_gateway_cold_start_duration_seconds_sum", &[]).unwrap();
        assert!((2.0..3.0).contains(&took), "{took}");
    });
}

#[test]
fn hosts_that_no_service_has_share_one_series() {
    time::run(async {
        let world = World::new();
        world.measured();
        let before = samples(&world.registry).len();
        for host in 0..20 {
            let request = Request::get("/").header("host", format!("h{host}.example")).body(text("")).unwrap();
            assert_eq!(world.ask(request).await.0, 404);
        }
        let found = value(&world.registry, "evroc_gateway_unrouted_requests_total", &[("reason", "no_service")]);
        assert_eq!(found, Some(20.0));
        assert_eq!(samples(&world.registry).len(), before + 1);
    });
}

#[test]
fn the_series_of_a_deleted_service_are_removed() {
    time::run(async {
        let (mut api, client) = super::reports::Api::new();
        let (registry, table) = (Registry::default(), Arc::<Table>::default());
        table.measure(&registry);
        let metrics = Metrics::new(&registry);
        let empty = samples(&registry).len();
        tokio::spawn(crate::follow::services(client, table.clone(), metrics.clone()));
        let service = json!({"apiVersion": "run.evroclabs.net/v1alpha1", "kind": "Service",
            "metadata": {"name": "a", "namespace": "demo", "uid": "u", "resourceVersion": "7"},
            "spec": {"template": {"spec": {"containers": [{"image": "registry.x/demo/a:1"}]}}},
            "status": {"url": format!("https://{HOST}"), "traffic": [
                {"revisionName": "a-1", "percent": 100, "latestRevision": true}]}});
        let items =
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "7"}, "items": [service]});
        api.next().await.answer(200, items);
        let watch = api.next().await;
        let known = table.routed(HOST).and_then(|routed| routed.service).expect("a service that is measured");
        known.answered(http::StatusCode::OK, time::now());
        assert_eq!(value(&registry, "evroc_gateway_requests_total", &[("response_code_class", "2xx")]), Some(1.0));
        assert!(samples(&registry).len() > empty);
        watch.answer(200, json!({"type": "DELETED", "object": service}));
        api.next().await;
        // A request that was under way when the service was deleted.
        known.answered(http::StatusCode::OK, time::now());
        assert_eq!(samples(&registry).len(), empty, "{}", registry.text());
    });
}
