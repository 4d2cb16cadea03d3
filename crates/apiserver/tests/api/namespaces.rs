//! The life-cycle of namespaces.

use serde_json::{Value, json};

use crate::support::{DISKS, TestServer, disk, eventually, eventually_deleted};

#[tokio::test]
async fn objects_need_a_namespace() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (code, refused) = admin.post(DISKS, &disk("a", 1)).await;
    assert_eq!(code, 404);
    assert_eq!(refused["message"], "namespaces \"demo\" not found");
    let made = admin.make_namespace("demo").await;
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "demo");
    admin.create(DISKS, &disk("a", 1)).await;
    for bad in ["a.b", "Capital", &"x".repeat(64)] {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": bad}});
        assert_eq!(admin.post("/api/v1/namespaces", &body).await.0, 422, "{bad}");
    }
}

#[tokio::test]
async fn a_deleted_namespace_empties_itself() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 1)).await;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}});
    admin.create("/api/v1/namespaces/demo/configmaps", &config).await;
    let (code, deleting) = admin.delete("/api/v1/namespaces/demo").await;
    assert_eq!(code, 200);
    assert_eq!(deleting["status"]["phase"], "Terminating");
    eventually_deleted(&admin, "/api/v1/namespaces/demo").await;
    assert_eq!(admin.get(&format!("{DISKS}/a")).await.0, 404);
    admin.make_namespace("demo").await;
    assert_eq!(admin.get(DISKS).await.1["items"], json!([]));
}

#[tokio::test]
async fn a_terminating_namespace_reports_what_it_waits_for_and_accepts_no_objects() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut held = disk("held", 1);
    held["metadata"]["finalizers"] = json!(["test.example/hold"]);
    admin.create(DISKS, &held).await;
    admin.delete("/api/v1/namespaces/demo").await;
    let tells = |_, it: &Value| {
        it["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|it| {
                it["message"].as_str().is_some_and(|it| it.contains("test.example/hold in 1 resource instances"))
            })
        })
    };
    eventually(&admin, "/api/v1/namespaces/demo", "telling", tells).await;
    let (code, refused) = admin.post(DISKS, &disk("late", 1)).await;
    assert_eq!(code, 403, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    admin.merge(&format!("{DISKS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    eventually_deleted(&admin, "/api/v1/namespaces/demo").await;
}

#[tokio::test]
async fn creates_race_with_the_end_of_a_namespace_and_nothing_is_left() {
    let (_server, admin) = TestServer::with_demo().await;
    let writes = (0..100).map(|number| {
        let admin = admin.clone();
        async move { admin.post(DISKS, &disk(&format!("d{number}"), 1)).await.0.as_u16() }
    });
    let (codes, _) = tokio::join!(futures::future::join_all(writes), admin.delete("/api/v1/namespaces/demo"));
    assert!(codes.iter().all(|code| matches!(code, 201 | 403 | 404)), "{codes:?}");
    eventually_deleted(&admin, "/api/v1/namespaces/demo").await;
    let (_, list) = admin.get("/apis/test.example/v1/disks").await;
    assert_eq!(list["items"], json!([]));
}
