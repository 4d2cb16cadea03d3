use serde_json::json;

use super::*;
use crate::http::request::Query;

fn metrics() -> Metrics {
    let mut kind = ResourceKind::new("test.example", "v1", "Disk", "disks", json!({"type": "object"}));
    kind.subresources.status = true;
    let kinds = Kinds::new(vec![kind]).expect("a kind");
    Metrics::new(Registry::default(), &kinds)
}

fn labels_of(metrics: &Metrics, method: &str, path: &str, query: &str) -> [String; 4] {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let info = RequestInfo::parse(&method, path, &Query::parse(Some(query))).ok();
    let labels = metrics.labels(info.as_ref(), None, false);
    let text = |text: Text| text.as_str().to_owned();
    let scope = format!("{:?}", labels.scope).to_lowercase();
    [format!("{:?}", labels.verb).to_lowercase(), text(labels.resource), text(labels.subresource), scope]
}

#[test]
fn labels_are_those_of_kubernetes_and_never_what_a_client_made_up() {
    let metrics = metrics();
    let disks = "/apis/test.example/v1/namespaces/demo/disks";
    for (method, path, query, want) in [
        ("GET", &format!("{disks}/a")[..], "", ["get", "disks", "", "resource"]),
        ("GET", disks, "", ["list", "disks", "", "namespace"]),
        ("GET", "/apis/test.example/v1/disks", "watch=true", ["watch", "disks", "", "cluster"]),
        ("POST", disks, "", ["post", "disks", "", "namespace"]),
        ("PUT", &format!("{disks}/a/status"), "", ["put", "disks", "status", "resource"]),
        ("GET", &format!("{disks}/a/x1"), "", ["get", "disks", "other", "resource"]),
        ("BREW", disks, "", ["other", "disks", "", "namespace"]),
        ("GET", "/apis/test.example/v9/namespaces/demo/disks", "", ["list", "other", "", "none"]),
        ("GET", "/apis/made.up/v1/x17", "", ["list", "other", "", "none"]),
        ("GET", "/api/v1/namespaces/x17/y17/z17", "", ["get", "other", "", "none"]),
        ("GET", "/metrics/node/h1", "", ["get", "", "/metrics", "none"]),
        ("GET", "/", "", ["get", "", "/", "none"]),
        ("GET", "/apis", "", ["get", "", "/apis", "none"]),
        ("GET", "/x17/y", "", ["get", "", "other", "none"]),
        ("GET", "/a/../../%2e%2e/%00", "", ["other", "", "other", "none"]),
    ] {
        assert_eq!(labels_of(&metrics, method, path, query), want, "{method} {path}?{query}");
    }
}
