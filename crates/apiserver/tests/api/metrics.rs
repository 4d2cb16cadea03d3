//! `GET /metrics`: who may read it, and what it says.

use std::sync::Arc;

use async_trait::async_trait;
use evroc_apiserver::ApiError;
use evroc_apiserver::metrics::MetricsOfOthers;
use evroc_metrics::read::{Sample, read};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;

use crate::support::{Client, DISKS, TestServer, disk};

async fn scrape(client: &Client) -> Vec<Sample> {
    let request = Request::get("/metrics").body(Full::default()).unwrap();
    let response = client.respond(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    read(std::str::from_utf8(&text).unwrap()).expect("OpenMetrics")
}

/// The sum of the values with this name and these labels.
fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has =
        |sample: &&Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|it| it == value));
    samples.iter().filter(|sample| sample.name == name).filter(has).map(|sample| sample.value).sum()
}

#[tokio::test]
async fn operators_read_metrics_and_nobody_else_does() {
    let (server, admin) = TestServer::with_demo().await;
    scrape(&admin).await;
    for path in ["/metrics", "/metrics/node/a"] {
        let (code, _) = server.client("bob", &["people"]).get(path).await;
        assert_eq!(code, 403, "{path}");
        let request = Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap();
        assert_eq!(server.api.service().oneshot(request).await.unwrap().status(), 401, "{path}");
    }
    assert_eq!(admin.send(Method::POST, "/metrics", "text/plain", "").await.0, 405);
    assert_eq!(admin.get("/metrics/node/a").await.0, 404, "this server serves only its own");
}

#[tokio::test]
async fn a_request_moves_its_counters_and_a_watch_is_open_until_it_ends() {
    let (_server, admin) = TestServer::with_demo().await;
    let created = [("verb", "POST"), ("resource", "disks"), ("group", "test.example"), ("scope", "namespace")];
    let before = scrape(&admin).await;
    admin.create(DISKS, &disk("a", 1)).await;
    assert_eq!(admin.post(DISKS, &disk("a", 1)).await.0, 409);
    assert_eq!(admin.apply(&format!("{DISKS}/b?fieldManager=x"), &disk("b", 1)).await.0, 201);
    // A list is answered when the server has seen every write.
    assert_eq!(admin.get(DISKS).await.0, 200);
    let after = scrape(&admin).await;
    let moved = |name: &str, labels: &[(&str, &str)]| sum(&after, name, labels) - sum(&before, name, labels);
    assert_eq!(moved("apiserver_request_total", &[&created[..], &[("code", "201")]].concat()), 1.0);
    assert_eq!(moved("apiserver_request_total", &[&created[..], &[("code", "409")]].concat()), 1.0);
    assert_eq!(moved("apiserver_request_total", &[("verb", "APPLY"), ("resource", "disks")]), 1.0);
    assert_eq!(moved("apiserver_request_duration_seconds_count", &created), 2.0);
    assert_eq!(sum(&after, "apiserver_storage_objects", &[("resource", "disks")]), 2.0);
    assert!(sum(&after, "apiserver_storage_size_bytes", &[]) > 0.0);

    let open = |samples: &[Sample]| sum(samples, "apiserver_longrunning_requests", &[("resource", "disks")]);
    let mut watch = admin.watch(&format!("{DISKS}?watch=true")).await;
    watch.next().await.expect("an object");
    assert_eq!(open(&scrape(&admin).await), 1.0);
    drop(watch);
    let last = scrape(&admin).await;
    assert_eq!(open(&last), 0.0);
    assert_eq!(sum(&last, "apiserver_request_duration_seconds_count", &[("verb", "WATCH")]), 0.0);
    assert_eq!(sum(&last, "apiserver_current_inflight_requests", &[]), 1.0, "the reading itself");
}

#[tokio::test]
async fn hostile_requests_add_no_series_of_their_own() {
    let (server, admin) = TestServer::with_demo().await;
    let attack = async |round: usize| {
        for path in [
            format!("/apis/g{round}.example/v1/things{round}"),
            format!("/apis/test.example/v{round}9/disks"),
            format!("{DISKS}/n{round}/s{round}"),
            format!("{DISKS}/n{round}"),
            format!("/api/v1/namespaces/ns{round}/x{round}"),
            format!("/p{round}/q"),
            format!("/metrics/{round}"),
            format!("/%2e%2e/{round}%00"),
        ] {
            for method in ["GET".to_owned(), format!("BREW{round}"), "POST".to_owned()] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                admin.send(method.clone(), &path, "application/json", "{}").await;
                let stranger = Request::builder().method(method).uri(&path).header("host", format!("h{round}.example"));
                let stranger = stranger.body(Full::<bytes::Bytes>::default()).unwrap();
                server.api.service().oneshot(stranger).await.unwrap();
            }
        }
    };
    attack(0).await;
    let first = scrape(&admin).await.len();
    for round in 1..8 {
        attack(round).await;
    }
    let last = scrape(&admin).await;
    // The first reading is itself a new series in the second.
    assert!(last.len() <= first + 20, "{first} series became {}", last.len());
    assert!(!last.iter().any(|it| it.labels.values().any(|value| value.contains("BREW") || value.contains("g7"))));
}

struct OneNode;

#[async_trait]
impl MetricsOfOthers for OneNode {
    async fn text(&self, path: &[String]) -> Result<bytes::Bytes, ApiError> {
        match path {
            [node, name] if node == "node" && name == "a" => Ok("# EOF\n".into()),
            [node, _] if node == "node" => Err(ApiError::unavailable("host is not connected")),
            _ => Err(ApiError::no_such_path()),
        }
    }
}

#[tokio::test]
async fn the_metrics_of_other_processes_are_below_the_same_path() {
    let server = TestServer::start_with(|builder| builder.metrics_of_others(Arc::new(OneNode))).await;
    let admin = server.admin();
    assert_eq!(admin.get("/metrics/node/a").await, (http::StatusCode::OK, "# EOF\n".into()));
    let (code, refused) = admin.get("/metrics/node/b").await;
    assert_eq!((code.as_u16(), refused["message"].as_str()), (503, Some("host is not connected")));
    assert_eq!(admin.get("/metrics/x").await.0, 404);
    scrape(&admin).await;
}
