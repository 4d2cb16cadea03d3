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
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "stringData": {"l": "other"}}).to_string();
    let path = "/api/v1/namespaces/demo/secrets/s";
    let (code, patched) = admin.send(http::Method::PATCH, path, "application/strategic-merge-patch+json", patch).await;
    assert_eq!((code.as_u16(), &patched["data"]), (200, &json!({"k": "aGVsbG8=", "l": "b3RoZXI="})), "{patched}");
    assert_eq!(names(&admin.get("/api/v1/namespaces/demo/secrets?labelSelector=a%3Db").await.1), ["s"]);
    assert_eq!(admin.merge(path, &json!({"type": "other"})).await.0, 422, "the type stays");
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
    // The old columns want a time where a client gives only the new one.
    let given = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e2"}, "eventTime": new["eventTime"],
        "involvedObject": {"kind": "Disk", "name": "a", "namespace": "demo"}, "message": "And then"});
    let made = admin.create("/api/v1/namespaces/demo/events", &given).await;
    assert_eq!((&made["firstTimestamp"], &made["lastTimestamp"]), (&core["lastTimestamp"], &core["lastTimestamp"]));
    // An event that is written in one form is read in the other.
    let core = "/api/v1/namespaces/demo/events/e1";
    assert_eq!(admin.merge(core, &json!({"message": "It happened again", "count": 2})).await.0, 200);
    let (_, new) = admin.get(&format!("{path}/e1")).await;
    assert_eq!((&new["note"], &new["deprecatedCount"]), (&json!("It happened again"), &json!(2)), "{new}");
    assert_eq!(admin.merge(&format!("{path}/e1"), &json!({"note": "Enough"})).await.0, 200);
    assert_eq!(admin.get(core).await.1["message"], "Enough");
    admin.delete(&format!("{path}/e1")).await;
    assert_eq!(admin.get(core).await.0, 404);
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
    assert_eq!(made["spec"], lease["spec"], "microseconds and all");
    let none = json!({"spec": {"leaseDurationSeconds": 0}});
    let (code, refused) = admin.merge(&format!("{path}/leader"), &none).await;
    assert_eq!(code, 422, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("spec.leaseDurationSeconds"), "{refused}");
    let mut one = made.clone();
    one["spec"]["holderIdentity"] = json!("two");
    assert_eq!(admin.put(&format!("{path}/leader"), &one).await.0, 200);
    one["spec"]["holderIdentity"] = json!("three");
    assert_eq!(admin.put(&format!("{path}/leader"), &one).await.0, 409);
}
