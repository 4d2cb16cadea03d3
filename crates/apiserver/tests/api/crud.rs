//! Create, read, update and delete, and the metadata that the server keeps.

use serde_json::{Value, json};

use crate::support::{DISKS, TestServer, disk};

fn at<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let (_server, admin) = TestServer::with_demo().await;
    let made = admin.create(DISKS, &disk("a", 5)).await;
    assert_eq!(at(&made, "/metadata/generation"), 1);
    assert_eq!(at(&made, "/metadata/namespace"), "demo");
    assert_eq!(at(&made, "/spec/class"), "standard", "defaults are filled in");
    assert!(at(&made, "/metadata/uid").as_str().unwrap().len() == 36);
    assert!(at(&made, "/metadata/creationTimestamp").as_str().unwrap().ends_with('Z'));

    let (code, read) = admin.get(&format!("{DISKS}/a")).await;
    assert_eq!((code.as_u16(), &read), (200, &made), "the answer is the stored object");

    let mut changed = made.clone();
    changed["spec"]["sizeGb"] = json!(6);
    let (code, updated) = admin.put(&format!("{DISKS}/a"), &changed).await;
    assert_eq!(code, 200, "{updated}");
    assert_eq!(at(&updated, "/metadata/generation"), 2);
    assert_ne!(at(&updated, "/metadata/resourceVersion"), at(&made, "/metadata/resourceVersion"));

    let (code, refused) = admin.put(&format!("{DISKS}/a"), &changed).await;
    assert_eq!(code, 409, "{refused}");
    assert_eq!(refused["reason"], "Conflict");
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on disks.test.example \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );

    let (code, deleted) = admin.delete(&format!("{DISKS}/a")).await;
    assert_eq!(code, 200, "{deleted}");
    assert_eq!(deleted["status"], "Success");
    assert_eq!(deleted["details"]["name"], "a");
    let (code, missing) = admin.get(&format!("{DISKS}/a")).await;
    assert_eq!(code, 404);
    assert_eq!(missing["message"], "disks.test.example \"a\" not found");
    assert_eq!(missing["details"], json!({"name": "a", "group": "test.example", "kind": "disks"}));
}

#[tokio::test]
async fn a_second_create_is_refused() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 5)).await;
    let (code, refused) = admin.post(DISKS, &disk("a", 6)).await;
    assert_eq!(code, 409);
    assert_eq!(refused["reason"], "AlreadyExists");
    assert_eq!(refused["message"], "disks.test.example \"a\" already exists");
}

#[tokio::test]
async fn concurrent_creates_of_one_name_have_one_winner() {
    let (_server, admin) = TestServer::with_demo().await;
    let attempts = (0..16).map(|size| {
        let admin = admin.clone();
        async move { admin.post(DISKS, &disk("a", size + 1)).await.0.as_u16() }
    });
    let mut codes = futures::future::join_all(attempts).await;
    codes.sort_unstable();
    assert_eq!(codes[0], 201);
    assert!(codes[1..].iter().all(|code| *code == 409), "{codes:?}");
}

#[tokio::test]
async fn the_server_chooses_system_metadata() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut wanted = disk("a", 5);
    wanted["metadata"]["uid"] = json!("mine");
    wanted["metadata"]["generation"] = json!(7);
    wanted["metadata"]["creationTimestamp"] = json!(null);
    wanted["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    wanted["status"] = json!({"phase": "Ready"});
    let made = admin.create(DISKS, &wanted).await;
    assert_ne!(made["metadata"]["uid"], "mine");
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(at(&made, "/metadata/deletionTimestamp"), &Value::Null);
    assert_eq!(at(&made, "/status"), &Value::Null, "status is written through its subresource only");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let (_server, admin) = TestServer::with_demo().await;
    let made = admin.create(DISKS, &disk("a", 5)).await;
    let mut wanted = made.clone();
    wanted["status"] = json!({"phase": "Ready"});
    wanted["spec"]["sizeGb"] = json!(9);
    let (code, updated) = admin.put(&format!("{DISKS}/a/status"), &wanted).await;
    assert_eq!(code, 200, "{updated}");
    assert_eq!(updated["status"]["phase"], "Ready");
    assert_eq!(updated["spec"]["sizeGb"], 5, "a status write leaves the rest alone");
    assert_eq!(updated["metadata"]["generation"], 1, "and is no new generation");

    let mut wanted = updated.clone();
    wanted["status"] = json!({"phase": "Broken"});
    wanted["spec"]["sizeGb"] = json!(9);
    let (_, updated) = admin.put(&format!("{DISKS}/a"), &wanted).await;
    assert_eq!(updated["status"]["phase"], "Ready", "a spec write leaves the status alone");
    assert_eq!(updated["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_new_revision() {
    let (_server, admin) = TestServer::with_demo().await;
    let made = admin.create(DISKS, &disk("a", 5)).await;
    let (code, same) = admin.put(&format!("{DISKS}/a"), &made).await;
    assert_eq!(code, 200);
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (_, same) = admin.merge(&format!("{DISKS}/a"), &json!({"spec": {"sizeGb": 5}})).await;
    assert_eq!(same["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn names_are_generated() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut wanted = disk("x", 5);
    wanted["metadata"] = json!({"generateName": "disk-"});
    let one = admin.create(DISKS, &wanted).await;
    let two = admin.create(DISKS, &wanted).await;
    let name = one["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("disk-") && name.len() == 10, "{name}");
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let (_server, admin) = TestServer::with_demo().await;
    let (code, tried) = admin.post(&format!("{DISKS}?dryRun=All"), &disk("a", 5)).await;
    assert_eq!(code, 201);
    assert_eq!(tried["spec"]["class"], "standard");
    assert_eq!(admin.get(&format!("{DISKS}/a")).await.0, 404);
    admin.create(DISKS, &disk("a", 5)).await;
    let (code, tried) = admin.merge(&format!("{DISKS}/a?dryRun=All"), &json!({"spec": {"sizeGb": 8}})).await;
    assert_eq!((code.as_u16(), &tried["spec"]["sizeGb"]), (200, &json!(8)));
    let (code, _) = admin.delete(&format!("{DISKS}/a?dryRun=All")).await;
    assert_eq!(code, 200);
    let (_, kept) = admin.get(&format!("{DISKS}/a")).await;
    assert_eq!(kept["spec"]["sizeGb"], 5);
}

#[tokio::test]
async fn finalizers_hold_a_deletion_up() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut wanted = disk("a", 5);
    wanted["metadata"]["finalizers"] = json!(["test.example/hold"]);
    admin.create(DISKS, &wanted).await;
    let (code, waiting) = admin.delete(&format!("{DISKS}/a")).await;
    assert_eq!(code, 200);
    assert_eq!(waiting["kind"], "Disk", "the object is answered while it waits");
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(waiting["metadata"]["generation"], 2);
    let (code, refused) = admin.post(DISKS, &disk("a", 6)).await;
    assert_eq!(
        (code.as_u16(), refused["message"].as_str().unwrap()),
        (409, "object is being deleted: disks.test.example \"a\" already exists")
    );
    let (_, again) = admin.delete(&format!("{DISKS}/a")).await;
    assert_eq!(
        again["metadata"]["resourceVersion"], waiting["metadata"]["resourceVersion"],
        "a second one changes nothing"
    );
    let (code, released) = admin.merge(&format!("{DISKS}/a"), &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200, "{released}");
    assert_eq!(admin.get(&format!("{DISKS}/a")).await.0, 404);
}

#[tokio::test]
async fn deletions_have_preconditions() {
    let (_server, admin) = TestServer::with_demo().await;
    let made = admin.create(DISKS, &disk("a", 5)).await;
    let path = format!("{DISKS}/a");
    let delete = async |preconditions: Value| {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
        admin.send(http::Method::DELETE, &path, "application/json", body.to_string()).await
    };
    let (code, refused) = delete(json!({"uid": "other"})).await;
    assert_eq!(code, 409, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("the UID in the precondition (other) does not match"));
    assert_eq!(delete(json!({"resourceVersion": "1"})).await.0, 409);
    let right = json!({"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]});
    assert_eq!(delete(right).await.0, 200);
}

#[tokio::test]
async fn invalid_objects_are_refused_with_every_cause() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut wanted = disk("a", 5000);
    wanted["spec"]["class"] = json!("slow");
    let (code, refused) = admin.post(DISKS, &wanted).await;
    assert_eq!(code, 422, "{refused}");
    assert_eq!(refused["reason"], "Invalid");
    let fields: Vec<&str> =
        refused["details"]["causes"].as_array().unwrap().iter().map(|it| it["field"].as_str().unwrap()).collect();
    assert!(fields.contains(&"spec.sizeGb") && fields.contains(&"spec.class"), "{refused}");
    let (code, refused) = admin
        .post(DISKS, &json!({"apiVersion": "test.example/v1", "kind": "Disk", "metadata": {"name": "Not A Name"}}))
        .await;
    assert_eq!(code, 422, "{refused}");
}

#[tokio::test]
async fn rules_compare_with_the_old_object() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 5)).await;
    let (code, refused) = admin.merge(&format!("{DISKS}/a"), &json!({"spec": {"class": "fast"}})).await;
    assert_eq!(code, 422, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("class is immutable"), "{refused}");
}

#[tokio::test]
async fn unknown_fields_are_dropped_reported_or_refused() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut wanted = disk("a", 5);
    wanted["spec"]["colour"] = json!("blue");
    let strict = format!("{DISKS}?fieldValidation=Strict");
    let (code, refused) = admin.post(&strict, &wanted).await;
    assert_eq!(code, 400, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("unknown field \"spec.colour\""), "{refused}");
    let request = http::Request::post(DISKS)
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(wanted.to_string().into()))
        .unwrap();
    let response = admin.respond(request).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["warning"], "299 - \"unknown field \\\"spec.colour\\\"\"");
    let (_, stored) = admin.get(&format!("{DISKS}/a")).await;
    assert_eq!(at(&stored, "/spec/colour"), &Value::Null);
    let twice =
        r#"{"apiVersion":"test.example/v1","kind":"Disk","metadata":{"name":"b"},"spec":{"sizeGb":1,"sizeGb":2}}"#;
    let (code, refused) = admin.send(http::Method::POST, &strict, "application/json", twice).await;
    assert_eq!(code, 400, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("duplicate field \"spec.sizeGb\""), "{refused}");
}

#[tokio::test]
async fn requests_that_do_not_fit_the_path_are_refused() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut other = disk("a", 5);
    other["metadata"]["namespace"] = json!("elsewhere");
    assert_eq!(admin.post(DISKS, &other).await.0, 400);
    let mut other = disk("a", 5);
    other["kind"] = json!("Zone");
    assert_eq!(admin.post(DISKS, &other).await.0, 422);
    let mut other = disk("a", 5);
    other["apiVersion"] = json!("test.example/v2");
    assert_eq!(admin.post(DISKS, &other).await.0, 400);
    admin.create(DISKS, &disk("a", 5)).await;
    assert_eq!(admin.put(&format!("{DISKS}/a"), &disk("b", 5)).await.0, 400);
    assert_eq!(admin.post(&format!("{DISKS}/a"), &disk("a", 5)).await.0, 405);
    assert_eq!(admin.get("/apis/test.example/v1/disks/a").await.0, 404, "namespaced kinds need a namespace");
    assert_eq!(admin.get("/apis/test.example/v1/namespaces/demo/zones").await.0, 404, "cluster-wide kinds have none");
    assert_eq!(admin.get("/api/v1/namespaces/demo/services").await.0, 404);
    assert_eq!(admin.get("/api/v1/pods").await.0, 404);
    let (code, refused) = admin.send(http::Method::POST, DISKS, "application/vnd.kubernetes.protobuf", "k8s\0").await;
    assert_eq!(code, 415, "{refused}");
    assert_eq!(admin.get_as(DISKS, "application/vnd.kubernetes.protobuf").await.0, 406);
    assert_eq!(admin.post(DISKS, &json!({"metadata": {}})).await.0, 400);
    assert_eq!(admin.send(http::Method::POST, DISKS, "application/json", "{").await.0, 400);
    let large = vec![b' '; (3 << 20) + 1];
    assert_eq!(admin.send(http::Method::POST, DISKS, "application/json", large).await.0, 413);
}

#[tokio::test]
async fn the_scale_subresource_is_a_view_of_two_numbers() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 5)).await;
    let (code, scale) = admin.get(&format!("{DISKS}/a/scale")).await;
    assert_eq!((code.as_u16(), &scale["kind"], &scale["spec"]["replicas"]), (200, &json!("Scale"), &json!(1)));
    let (code, scale) = admin.merge(&format!("{DISKS}/a/scale"), &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((code.as_u16(), &scale["spec"]["replicas"]), (200, &json!(3)), "{scale}");
    let (_, object) = admin.get(&format!("{DISKS}/a")).await;
    assert_eq!(object["spec"]["copies"], 3);
    let (code, _) = admin.merge(&format!("{DISKS}/a/scale"), &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(code, 422);
}
