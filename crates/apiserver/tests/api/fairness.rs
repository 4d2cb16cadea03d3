//! One client cannot starve others, none can starve the controllers; requests that are too large or too slow are refused.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evroc_apiserver::authn::Identity;
use evroc_apiserver::flow::FlowLimits;
use evroc_apiserver::virtual_kind::{Answer, Question};
use evroc_apiserver::{ApiError, ResourceKind, Scope};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{Client, DISKS, TestServer, disk};

/// A kind whose answers wait until they are let go.
struct Slow(Arc<Semaphore>);

#[async_trait]
impl Answer for Slow {
    async fn answer(&self, question: Question) -> Result<Value, ApiError> {
        let _permit = self.0.acquire().await.map_err(ApiError::internal)?;
        Ok(question.object)
    }
}

const SLOW: &str = "/apis/test.example/v1/slows";

#[tokio::test]
async fn a_flood_of_one_caller_does_not_affect_others() {
    let gate = Arc::new(Semaphore::new(0));
    let mut kind = ResourceKind::new("test.example", "v1", "Slow", "slows", json!({"type": "object"}));
    kind.scope = Scope::Cluster;
    kind.answer = Some(Arc::new(Slow(gate.clone())));
    let limits = FlowLimits { running: 4, waiting: 8, patience: Duration::from_secs(20), ..FlowLimits::default() };
    let server = TestServer::start_with(|builder| builder.kind(kind).flow_limits(limits)).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    let flooder = server.client("flooder", &["evroc:operators"]);
    let body = json!({"apiVersion": "test.example/v1", "kind": "Slow", "metadata": {"name": "a"}});
    let mut flood: tokio::task::JoinSet<_> = (0..20)
        .map(|_| {
            let (flooder, body) = (flooder.clone(), body.to_string());
            async move {
                let request =
                    Request::post(SLOW).header("content-type", "application/json").body(Full::new(body.into()));
                let response = flooder.respond(request.unwrap()).await;
                (response.status().as_u16(), response.headers().get("retry-after").is_some())
            }
        })
        .collect();
    // Four run and eight wait; the others are refused at once with a time to retry.
    for _ in 0..8 {
        assert_eq!(flood.join_next().await.unwrap().unwrap(), (429, true));
    }
    let (code, refused) = flooder.get(DISKS).await;
    assert_eq!((code.as_u16(), refused["reason"].as_str()), (429, Some("TooManyRequests")), "{refused}");
    admin.create(DISKS, &disk("a", 1)).await;
    let controller = Client(server.api.service_as(Identity::controller("it")));
    let all = (0..50).map(|index| {
        let controller = controller.clone();
        async move {
            controller.merge(&format!("{DISKS}/a"), &json!({"metadata": {"labels": {"i": index.to_string()}}})).await.0
        }
    });
    assert!(futures::future::join_all(all).await.iter().all(|code| *code == 200), "controllers have no limits");
    // A waiting request is answered when there is room.
    gate.add_permits(100);
    while let Some(answer) = flood.join_next().await {
        assert_eq!(answer.unwrap(), (201, false));
    }
    assert_eq!(flooder.get(DISKS).await.0, 200);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut large = disk("large", 1);
    large["metadata"]["annotations"] = json!({"a": "x".repeat(300 * 1024)});
    let (code, refused) = admin.post(DISKS, &large).await;
    assert_eq!((code.as_u16(), refused["reason"].as_str()), (422, Some("Invalid")), "{refused}");
    let body = format!("{{\"metadata\": {{\"name\": \"{}\"}}}}", "x".repeat(4 << 20));
    let (code, refused) = admin.send(http::Method::POST, DISKS, "application/json", body).await;
    assert_eq!((code.as_u16(), refused["reason"].as_str()), (413, Some("RequestEntityTooLarge")), "{refused}");
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"a": "x".repeat(2 << 20)}});
    let (code, _) = admin.post("/api/v1/namespaces/demo/configmaps", &config).await;
    assert!(code == 422 || code == 413, "{code}");
}

#[tokio::test]
async fn numbers_keep_their_form_on_every_path() {
    let (_server, admin) = TestServer::with_demo().await;
    // Fractions that a careless reader rounds, and integers at the limit of a float.
    let numbers = r#"{"third": 0.1234567890123456789, "tiny": 5e-324, "large": 1.7976931348623157e308, "whole": 9007199254740993, "least": -9223372036854775808, "rest": 2.1}"#;
    let text = disk("a", 1).to_string().replacen("\"spec\":{", &format!("\"spec\":{{\"free\":{numbers},"), 1);
    let (code, created) = admin.send(http::Method::POST, DISKS, "application/json", text).await;
    assert_eq!(code, 201, "{created}");
    let expected: Value = serde_json::from_str(numbers).unwrap();
    let path = format!("{DISKS}/a");
    let check = |how: &str, object: &Value| {
        assert_eq!(object["spec"]["free"], expected, "{how}");
        assert_eq!(object["spec"]["free"]["whole"].to_string(), "9007199254740993", "{how}");
        assert_eq!(object["spec"]["free"]["third"].to_string(), "0.12345678901234568", "{how}");
    };
    check("create", &created);
    check("get", &admin.get(&path).await.1);
    check("list", &admin.get(DISKS).await.1["items"][0]);
    check("merge patch", &admin.merge(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await.1);
    let patch = json!([{"op": "add", "path": "/metadata/labels/c", "value": "d"}]).to_string();
    check("JSON patch", &admin.send(http::Method::PATCH, &path, "application/json-patch+json", patch).await.1);
    let apply =
        format!("apiVersion: test.example/v1\nkind: Disk\nmetadata: {{name: a}}\nspec: {{sizeGb: 1, free: {numbers}}}");
    let applying = format!("{path}?fieldManager=x&force=true");
    check("apply", &admin.send(http::Method::PATCH, &applying, "application/apply-patch+yaml", apply).await.1);
    let read = admin.get(&path).await.1;
    check("update", &admin.put(&path, &read).await.1);
    let mut events = admin.watch(&format!("{DISKS}?watch=true")).await;
    check("watch", &events.next().await.unwrap()["object"]);
}
