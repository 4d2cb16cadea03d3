//! Create, read, update and delete, and the metadata that the server keeps.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Space, disk};

fn at<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let space = Space::new().await;
    let made = space.create(&space.disks(""), &disk("a", 5)).await;
    assert_eq!(at(&made, "/metadata/generation"), 1);
    assert_eq!(at(&made, "/metadata/namespace"), &json!(space.namespace));
    assert_eq!(at(&made, "/spec/class"), "standard", "defaults are filled in");
    assert_eq!(at(&made, "/metadata/uid").as_str().unwrap().len(), 36);
    assert!(at(&made, "/metadata/creationTimestamp").as_str().unwrap().ends_with('Z'));

    let read = space.get(&space.disks("/a")).await;
    assert_eq!((read.code, &read.body), (200, &made), "the answer is the stored object");

    let mut changed = made.clone();
    changed["spec"]["sizeGb"] = json!(6);
    let updated = space.put(&space.disks("/a"), &changed).await;
    assert_eq!(updated.code, 200, "{}", updated.body);
    assert_eq!(at(&updated.body, "/metadata/generation"), 2);
    assert_ne!(at(&updated.body, "/metadata/resourceVersion"), at(&made, "/metadata/resourceVersion"));

    let refused = space.put(&space.disks("/a"), &changed).await;
    assert_eq!((refused.code, &refused.body["reason"]), (409, &json!("Conflict")), "{}", refused.body);

    let deleted = space.delete(&space.disks("/a")).await;
    assert_eq!((deleted.code, &deleted.body["status"]), (200, &json!("Success")));
    assert_eq!(deleted.body["details"]["name"], "a");
    let missing = space.get(&space.disks("/a")).await;
    assert_eq!(missing.code, 404);
    assert_eq!(missing.body["message"], "disks.test.example \"a\" not found");
    assert_eq!(missing.body["details"], json!({"name": "a", "group": "test.example", "kind": "disks"}));
}

#[tokio::test]
async fn a_second_create_is_refused() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    let refused = space.post(&space.disks(""), &disk("a", 6)).await;
    assert_eq!((refused.code, &refused.body["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(refused.body["message"], "disks.test.example \"a\" already exists");
}

#[tokio::test]
async fn concurrent_creates_of_one_name_have_one_winner() {
    let space = Space::new().await;
    let attempts = (0..16).map(|size| {
        let space = &space;
        async move { space.post(&space.disks(""), &disk("a", size + 1)).await.code }
    });
    let mut codes = futures::future::join_all(attempts).await;
    codes.sort_unstable();
    assert_eq!(codes[0], 201);
    assert!(codes[1..].iter().all(|code| *code == 409), "{codes:?}");
}

#[tokio::test]
async fn the_server_chooses_system_metadata() {
    let space = Space::new().await;
    let mut wanted = disk("a", 5);
    wanted["metadata"]["uid"] = json!("mine");
    wanted["metadata"]["generation"] = json!(7);
    wanted["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    wanted["status"] = json!({"phase": "Ready"});
    let made = space.create(&space.disks(""), &wanted).await;
    assert_ne!(made["metadata"]["uid"], "mine");
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(at(&made, "/metadata/deletionTimestamp"), &Value::Null);
    assert_eq!(at(&made, "/status"), &Value::Null, "status is written through its subresource only");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let space = Space::new().await;
    let made = space.create(&space.disks(""), &disk("a", 5)).await;
    let mut wanted = made.clone();
    wanted["status"] = json!({"phase": "Ready"});
    wanted["spec"]["sizeGb"] = json!(9);
    let updated = space.put(&space.disks("/a/status"), &wanted).await;
    assert_eq!(updated.code, 200, "{}", updated.body);
    assert_eq!(updated.body["status"]["phase"], "Ready");
    assert_eq!(updated.body["spec"]["sizeGb"], 5, "a status write leaves the rest alone");
    assert_eq!(updated.body["metadata"]["generation"], 1, "and is no new generation");
    let mut wanted = updated.body.clone();
    wanted["status"] = json!({"phase": "Broken"});
    wanted["spec"]["sizeGb"] = json!(9);
    let updated = space.put(&space.disks("/a"), &wanted).await;
    assert_eq!(updated.body["status"]["phase"], "Ready", "a spec write leaves the status alone");
    assert_eq!(updated.body["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_new_revision() {
    let space = Space::new().await;
    let made = space.create(&space.disks(""), &disk("a", 5)).await;
    let same = space.put(&space.disks("/a"), &made).await;
    assert_eq!(same.code, 200);
    assert_eq!(same.body["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let same = space.merge(&space.disks("/a"), &json!({"spec": {"sizeGb": 5}})).await;
    assert_eq!(same.body["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn names_are_generated() {
    let space = Space::new().await;
    let mut wanted = disk("x", 5);
    wanted["metadata"] = json!({"generateName": "disk-"});
    let one = space.create(&space.disks(""), &wanted).await;
    let two = space.create(&space.disks(""), &wanted).await;
    let name = one["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("disk-") && name.len() == 10, "{name}");
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let space = Space::new().await;
    let tried = space.post(&space.disks("?dryRun=All"), &disk("a", 5)).await;
    assert_eq!((tried.code, &tried.body["spec"]["class"]), (201, &json!("standard")));
    assert_eq!(space.get(&space.disks("/a")).await.code, 404);
    space.create(&space.disks(""), &disk("a", 5)).await;
    let tried = space.merge(&space.disks("/a?dryRun=All"), &json!({"spec": {"sizeGb": 8}})).await;
    assert_eq!((tried.code, &tried.body["spec"]["sizeGb"]), (200, &json!(8)));
    assert_eq!(space.delete(&space.disks("/a?dryRun=All")).await.code, 200);
    assert_eq!(space.get(&space.disks("/a")).await.body["spec"]["sizeGb"], 5);
}

#[tokio::test]
async fn finalizers_hold_a_deletion_up() {
    let space = Space::new().await;
    let mut wanted = disk("a", 5);
    wanted["metadata"]["finalizers"] = json!(["test.example/hold"]);
    space.create(&space.disks(""), &wanted).await;
    let waiting = space.delete(&space.disks("/a")).await;
    assert_eq!((waiting.code, &waiting.body["kind"]), (200, &json!("Disk")), "the object is answered while it waits");
    assert!(waiting.body["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(waiting.body["metadata"]["generation"], 2);
    let refused = space.post(&space.disks(""), &disk("a", 6)).await;
    let message = "object is being deleted: disks.test.example \"a\" already exists";
    assert_eq!((refused.code, refused.body["message"].as_str().unwrap()), (409, message));
    let again = space.delete(&space.disks("/a")).await;
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&again.body), version(&waiting.body), "a second one changes nothing");
    let mut more = json!({"metadata": {"finalizers": ["test.example/hold", "test.example/late"]}});
    assert_eq!(
        space.merge(&space.disks("/a"), &more).await.code,
        422,
        "none is added to an object that is being deleted"
    );
    more["metadata"]["finalizers"] = Value::Null;
    assert_eq!(space.merge(&space.disks("/a"), &more).await.code, 200);
    assert_eq!(space.get(&space.disks("/a")).await.code, 404);
}

#[tokio::test]
async fn deletions_have_preconditions() {
    let space = Space::new().await;
    let made = space.create(&space.disks(""), &disk("a", 5)).await;
    let delete = async |preconditions: Value| {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
        space.send(Method::DELETE, &space.disks("/a"), "application/json", body.to_string()).await
    };
    let refused = delete(json!({"uid": "other"})).await;
    assert_eq!(refused.code, 409, "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().contains("the UID in the precondition (other) does not match"));
    assert_eq!(delete(json!({"resourceVersion": "1"})).await.code, 409);
    let right = json!({"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]});
    assert_eq!(delete(right).await.code, 200);
}

#[tokio::test]
async fn updates_have_preconditions() {
    let space = Space::new().await;
    let made = space.create(&space.disks(""), &disk("a", 5)).await;
    let mut wanted = made.clone();
    wanted["metadata"]["uid"] = json!("0dcb6f0c-0000-4000-8000-000000000001");
    assert_eq!(space.put(&space.disks("/a"), &wanted).await.code, 409, "another object of the same name");
    let mut wanted = made.clone();
    wanted["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(
        space.put(&space.disks("/a"), &wanted).await.code,
        422,
        "an update of a custom resource names the version"
    );
    let mut wanted = made;
    wanted["metadata"]["name"] = json!("b");
    assert_eq!(space.put(&space.disks("/a"), &wanted).await.code, 400);
    assert_eq!(space.put(&space.disks("/none"), &disk("none", 1)).await.code, 404, "an update does not create");
}

#[tokio::test]
async fn cluster_wide_objects_have_no_namespace() {
    let space = Space::new().await;
    let zones = "/apis/test.example/v1/zones";
    let zone = json!({"apiVersion": "test.example/v1", "kind": "Zone", "metadata": {"name": space.namespace}, "spec": {"city": "Rome"}});
    let made = space.create(zones, &zone).await;
    assert_eq!(at(&made, "/metadata/namespace"), &Value::Null);
    assert_eq!(space.get(&space.path("zones")).await.code, 404);
    assert_eq!(space.get("/apis/test.example/v1/disks/a").await.code, 404, "namespaced kinds need a namespace");
    assert_eq!(space.delete(&format!("{zones}/{}", space.namespace)).await.code, 200);
}

#[tokio::test]
async fn requests_that_do_not_fit_the_path_are_refused() {
    let space = Space::new().await;
    let disks = space.disks("");
    let changed = async |pointer: &str, value: &str| {
        let mut other = disk("a", 5);
        other["metadata"]["namespace"] = json!(space.namespace);
        *other.pointer_mut(pointer).unwrap() = json!(value);
        space.post(&disks, &other).await.code
    };
    assert_eq!(changed("/metadata/namespace", "elsewhere").await, 400);
    assert_eq!(changed("/kind", "Zone").await, 422);
    assert_eq!(changed("/apiVersion", "test.example/v2").await, 400);
    let odd = space.send(Method::POST, &disks, "application/x-odd", "{}").await;
    assert_eq!(odd.code, 415, "{}", odd.body);
    assert_eq!(space.get_as(&disks, "application/vnd.kubernetes.protobuf").await.code, 406);
    assert_eq!(space.post(&disks, &json!({"metadata": {}})).await.code, 400);
    assert_eq!(space.send(Method::POST, &disks, "application/json", "{").await.code, 400);
    let large = vec![b' '; (3 << 20) + 1];
    match space.client.send(Method::POST, &disks, "application/json", large).await {
        Ok(refused) => assert_eq!(refused.code, 413),
        // It answers before it has read all, and closes: the answer may not arrive.
        Err(error) => assert!(space.is_original, "{error:#}"),
    }
}

#[tokio::test]
async fn the_scale_subresource_is_a_view_of_two_numbers() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    let scale = space.get(&space.disks("/a/scale")).await;
    assert_eq!((scale.code, &scale.body["kind"], &scale.body["spec"]["replicas"]), (200, &json!("Scale"), &json!(1)));
    let scale = space.merge(&space.disks("/a/scale"), &json!({"spec": {"replicas": 3}})).await;
    assert_eq!((scale.code, &scale.body["spec"]["replicas"]), (200, &json!(3)), "{}", scale.body);
    assert_eq!(space.get(&space.disks("/a")).await.body["spec"]["copies"], 3);
    assert_eq!(space.merge(&space.disks("/a/scale"), &json!({"spec": {"replicas": -1}})).await.code, 422);
}
