//! The kinds of the core that clients expect.

use serde_json::{Value, json};

use crate::support::{TestServer, names};

#[tokio::test]
async fn secrets_fold_texts_into_bytes() {
    let (_server, admin) = TestServer::with_demo().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hello"}});
    let made = admin.create("/api/v1/namespaces/demo/secrets", &secret).await;
    assert_eq!(made["data"], json!({"k": "aGVsbG8="}));
    assert_eq!(made["type"], "Opaque");
    assert!(made.get("stringData").is_none());
    assert!(made["metadata"].get("generation").is_none());
    let bad = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "data": {"a b": "eA=="}});
    assert_eq!(admin.post("/api/v1/namespaces/demo/secrets", &bad).await.0, 422);
}

#[tokio::test]
async fn immutable_config_stays_as_it_is() {
    let (_server, admin) = TestServer::with_demo().await;
    let path = "/api/v1/namespaces/demo/configmaps";
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}, "immutable": true});
    admin.create(path, &config).await;
    let (code, refused) = admin.merge(&format!("{path}/c"), &json!({"data": {"k": "w"}})).await;
    assert_eq!(code, 422, "{refused}");
    let (code, _) = admin.merge(&format!("{path}/c"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(code, 200);
    // Typed clients leave the type to the path.
    let made = admin.create(path, &json!({"metadata": {"name": "d"}, "data": {"k": "v"}})).await;
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
}

#[tokio::test]
async fn events_have_two_faces() {
    let (_server, admin) = TestServer::with_demo().await;
    let new = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e1"},
        "eventTime": "2026-11-21T03:00:00.000000Z", "reportingController": "suite", "reportingInstance": "one",
        "action": "Testing", "reason": "Because", "type": "Normal", "note": "It happened",
        "regarding": {"kind": "Disk", "name": "a", "namespace": "demo"},
    });
    let path = "/apis/events.k8s.io/v1/namespaces/demo/events";
    let made = admin.create(path, &new).await;
    assert_eq!((&made["note"], &made["apiVersion"]), (&json!("It happened"), &json!("events.k8s.io/v1")), "{made}");
    let (_, core) = admin.get("/api/v1/namespaces/demo/events/e1").await;
    assert_eq!((&core["message"], &core["involvedObject"]["kind"]), (&json!("It happened"), &json!("Disk")), "{core}");
    assert_eq!(core["lastTimestamp"], "2026-11-21T03:00:00Z");
    assert_eq!(core["metadata"]["uid"], made["metadata"]["uid"]);
    let query = "fieldSelector=involvedObject.name%3Da,involvedObject.kind%3DDisk";
    let (_, list) = admin.get(&format!("/api/v1/namespaces/demo/events?{query}")).await;
    assert_eq!(names(&list), ["e1"]);
    let (_, list) = admin.get(path).await;
    assert_eq!(list["items"][0]["regarding"]["name"], "a");
    let mut events = admin.watch(&format!("{path}?watch=true")).await;
    let event: Value = events.next().await.unwrap();
    assert_eq!(event["object"]["note"], "It happened");
}

#[tokio::test]
async fn leases_are_taken_by_compare_and_set() {
    let (_server, admin) = TestServer::with_demo().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/demo/leases";
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"},
        "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15, "renewTime": "2026-11-21T03:00:00.000000Z"},
    });
    let made = admin.create(path, &lease).await;
    let mut one = made.clone();
    one["spec"]["holderIdentity"] = json!("two");
    assert_eq!(admin.put(&format!("{path}/leader"), &one).await.0, 200);
    one["spec"]["holderIdentity"] = json!("three");
    assert_eq!(admin.put(&format!("{path}/leader"), &one).await.0, 409);
}
