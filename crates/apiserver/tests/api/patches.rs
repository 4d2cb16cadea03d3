//! JSON patch, merge patch, server-side apply.

use http::Method;
use serde_json::{Value, json};

use crate::support::{DISKS, TestServer, disk};

#[tokio::test]
async fn json_patches_are_all_or_nothing() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 5)).await;
    let path = format!("{DISKS}/a");
    let patch = async |operations: Value| {
        admin.send(Method::PATCH, &path, "application/json-patch+json", operations.to_string()).await
    };
    let (code, changed) = patch(json!([{"op": "replace", "path": "/spec/sizeGb", "value": 6}])).await;
    assert_eq!((code.as_u16(), &changed["spec"]["sizeGb"]), (200, &json!(6)));
    let failing = json!([
        {"op": "replace", "path": "/spec/sizeGb", "value": 7},
        {"op": "test", "path": "/spec/class", "value": "fast"},
    ]);
    assert_eq!(patch(failing).await.0, 422);
    assert_eq!(admin.get(&path).await.1["spec"]["sizeGb"], 6);
    assert_eq!(patch(json!({"not": "a patch"})).await.0, 400);
}

#[tokio::test]
async fn concurrent_patches_all_count() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 5)).await;
    let patches = (0..20).map(|number| {
        let admin = admin.clone();
        async move {
            let labels = json!({"metadata": {"labels": {format!("l{number}"): "x"}}});
            admin.merge(&format!("{DISKS}/a"), &labels).await.0
        }
    });
    assert!(futures::future::join_all(patches).await.iter().all(|code| *code == 200));
    let (_, object) = admin.get(&format!("{DISKS}/a")).await;
    assert_eq!(object["metadata"]["labels"].as_object().unwrap().len(), 20);
}

#[tokio::test]
async fn a_patch_with_an_old_revision_is_refused() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 5)).await;
    let (code, refused) =
        admin.merge(&format!("{DISKS}/a"), &json!({"metadata": {"resourceVersion": "1"}, "spec": {"sizeGb": 6}})).await;
    assert_eq!((code.as_u16(), &refused["reason"]), (409, &json!("Conflict")));
}

#[tokio::test]
async fn strategic_merge_patches_are_for_typed_kinds() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 5)).await;
    let (code, refused) =
        admin.send(Method::PATCH, &format!("{DISKS}/a"), "application/strategic-merge-patch+json", "{}").await;
    assert_eq!((code.as_u16(), &refused["reason"]), (415, &json!("UnsupportedMediaType")));
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let (_server, admin) = TestServer::with_demo().await;
    let path = |manager: &str, force: bool| format!("{DISKS}/a?fieldManager={manager}&force={force}");
    let (code, made) = admin.apply(&path("one", false), &disk("a", 5)).await;
    assert_eq!(code, 201, "{made}");
    let managed = made["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managed.len(), 1);
    assert_eq!((&managed[0]["manager"], &managed[0]["operation"]), (&json!("one"), &json!("Apply")));
    let (code, same) = admin.apply(&path("one", false), &disk("a", 5)).await;
    assert_eq!(code, 200, "{same}");
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (code, refused) = admin.apply(&path("two", false), &disk("a", 6)).await;
    assert_eq!(code, 409, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(refused["details"]["causes"][0]["field"], ".spec.sizeGb");
    let (code, forced) = admin.apply(&path("two", true), &disk("a", 6)).await;
    assert_eq!((code.as_u16(), &forced["spec"]["sizeGb"]), (200, &json!(6)));
    let (code, refused) = admin.apply(&format!("{DISKS}/a"), &disk("a", 6)).await;
    assert_eq!(code, 422, "{refused}");
}

#[tokio::test]
async fn apply_to_status_owns_status_only() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 5)).await;
    let mut wanted = disk("a", 9);
    wanted["spec"] = Value::Null;
    wanted.as_object_mut().unwrap().remove("spec");
    wanted["status"] = json!({"phase": "Ready"});
    let (code, object) = admin.apply(&format!("{DISKS}/a/status?fieldManager=controller"), &wanted).await;
    assert_eq!(code, 200, "{object}");
    assert_eq!((&object["status"]["phase"], &object["spec"]["sizeGb"]), (&json!("Ready"), &json!(5)));
    let entry = object["metadata"]["managedFields"].as_array().unwrap().iter().find(|it| it["subresource"] == "status");
    assert_eq!(entry.unwrap()["manager"], "controller");
    let (code, _) = admin.apply(&format!("{DISKS}/none/status?fieldManager=controller"), &wanted).await;
    assert!(code == 404 || code == 400, "a status is not made without its object: {code}");
}
