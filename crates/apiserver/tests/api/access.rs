//! Who gets in and what they may.

use std::sync::Arc;
use std::sync::Mutex;

use evroc_apiserver::audit::{AuditRecord, AuditSink};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tower::ServiceExt;

use crate::support::{DISKS, TestServer, disk};

#[tokio::test]
async fn strangers_get_health_and_nothing_else() {
    let server = TestServer::start().await;
    let ask = async |path: &str| {
        let request = http::Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap();
        let response = server.api.service().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        (code, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(ask(path).await, (200, "ok".to_owned()), "{path}");
    }
    assert!(ask("/readyz?verbose").await.1.contains("[+]store ok"));
    assert_eq!(ask("/readyz/store").await.0, 200);
    assert_eq!(ask("/readyz/nothing").await.0, 404);
    for path in ["/", "/version", "/api", "/apis", "/openapi/v3", "/api/v1/namespaces", DISKS, "/no/such"] {
        assert_eq!(ask(path).await.0, 401, "{path}");
    }
}

#[tokio::test]
async fn what_nobody_allows_is_denied_in_kubernetes_words() {
    let (server, _admin) = TestServer::with_demo().await;
    let bob = server.client("bob", &["people"]);
    let (code, refused) = bob.get(&format!("{DISKS}/a")).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "disks.test.example \"a\" is forbidden: User \"bob\" cannot get resource \"disks\" in API group \"test.example\" in the namespace \"demo\""
    );
    let (_, refused) = bob.get("/api/v1/namespaces").await;
    assert_eq!(
        refused["message"],
        "namespaces is forbidden: User \"bob\" cannot list resource \"namespaces\" in API group \"\" at the cluster scope"
    );
    let (code, _) = bob.post(DISKS, &disk("a", 1)).await;
    assert_eq!(code, 403);
    assert_eq!(bob.get("/apis").await.0, 200, "discovery is for everybody who is somebody");
    let (code, refused) = bob.get("/metrics").await;
    assert_eq!(
        (code.as_u16(), refused["message"].as_str().unwrap()),
        (403, "forbidden: User \"bob\" cannot get path \"/metrics\"")
    );
}

#[tokio::test]
async fn one_may_ask_who_one_is_and_what_one_may() {
    let (server, admin) = TestServer::with_demo().await;
    let bob = server.client("bob", &["people"]);
    let question = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (code, answer) = bob.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &question).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["status"]["userInfo"], json!({"username": "bob", "groups": ["people", "system:authenticated"]}));
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "group": "test.example", "resource": "disks", "namespace": "demo"}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(bob.post(path, &question).await.1["status"]["allowed"], false);
    assert_eq!(admin.post(path, &question).await.1["status"]["allowed"], true);
}

#[derive(Default)]
struct Kept(Mutex<Vec<AuditRecord>>);

impl AuditSink for Kept {
    fn record(&self, record: AuditRecord) {
        self.0.lock().unwrap().push(record);
    }
}

#[tokio::test]
async fn every_request_is_recorded() {
    let kept = Arc::new(Kept::default());
    let sink = kept.clone();
    let server = TestServer::start_with(|it| it.audit(sink)).await;
    server.client("bob", &[]).get(&format!("{DISKS}/a")).await;
    let records = kept.0.lock().unwrap();
    let record = records.iter().find(|it| it.user.as_ref().is_some_and(|it| it.user == "bob")).unwrap();
    assert_eq!((record.verb.as_str(), record.resource.as_str(), record.namespace.as_str()), ("get", "disks", "demo"));
    assert_eq!((record.code, record.source.as_str(), record.name.as_str()), (403, "in-process", "a"));
    assert!(!record.reason.is_empty());
}
