//! JSON patch, merge patch, server-side apply.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Space, disk, widget};

#[tokio::test]
async fn json_patches_are_all_or_nothing() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    let path = space.disks("/a");
    let changed = space.patch(&path, &json!([{"op": "replace", "path": "/spec/sizeGb", "value": 6}])).await;
    assert_eq!((changed.code, &changed.body["spec"]["sizeGb"]), (200, &json!(6)));
    let failing = json!([
        {"op": "replace", "path": "/spec/sizeGb", "value": 7},
        {"op": "test", "path": "/spec/class", "value": "fast"},
    ]);
    assert_eq!(space.patch(&path, &failing).await.code, 422);
    assert_eq!(space.get(&path).await.body["spec"]["sizeGb"], 6);
    assert_eq!(space.patch(&path, &json!({"not": "a patch"})).await.code, 400);
}

#[tokio::test]
async fn concurrent_patches_all_count() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    // The original tries again five times: more at once may lose there.
    let patches = (0..5).map(|number| {
        let space = &space;
        async move {
            let labels = json!({"metadata": {"labels": {format!("l{number}"): "x"}}});
            space.merge(&space.disks("/a"), &labels).await.code
        }
    });
    assert!(futures::future::join_all(patches).await.iter().all(|code| *code == 200));
    let object = space.get(&space.disks("/a")).await.body;
    assert_eq!(object["metadata"]["labels"].as_object().unwrap().len(), 5);
}

#[tokio::test]
async fn a_patch_with_an_old_revision_is_refused() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    let refused =
        space.merge(&space.disks("/a"), &json!({"metadata": {"resourceVersion": "1"}, "spec": {"sizeGb": 6}})).await;
    assert_eq!((refused.code, &refused.body["reason"]), (409, &json!("Conflict")));
}

#[tokio::test]
async fn strategic_merge_patches_are_for_typed_kinds() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    let refused = space.send(Method::PATCH, &space.disks("/a"), "application/strategic-merge-patch+json", "{}").await;
    assert_eq!((refused.code, &refused.body["reason"]), (415, &json!("UnsupportedMediaType")));
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let space = Space::new().await;
    let path = |manager: &str, force: bool| space.disks(&format!("/a?fieldManager={manager}&force={force}"));
    let made = space.apply(&path("one", false), &disk("a", 5)).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let managed = made.body["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managed.len(), 1);
    assert_eq!((&managed[0]["manager"], &managed[0]["operation"]), (&json!("one"), &json!("Apply")));
    let same = space.apply(&path("one", false), &disk("a", 5)).await;
    assert_eq!(same.code, 200, "{}", same.body);
    assert_eq!(same.body["metadata"]["resourceVersion"], made.body["metadata"]["resourceVersion"]);
    let refused = space.apply(&path("two", false), &disk("a", 6)).await;
    assert_eq!(refused.code, 409, "{}", refused.body);
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "FieldManagerConflict");
    assert_eq!(refused.body["details"]["causes"][0]["field"], ".spec.sizeGb");
    let forced = space.apply(&path("two", true), &disk("a", 6)).await;
    assert_eq!((forced.code, &forced.body["spec"]["sizeGb"]), (200, &json!(6)));
    let shared = space.apply(&path("one", false), &disk("a", 6)).await;
    assert_eq!(shared.code, 200, "who wants the same shares it: {}", shared.body);
    assert_eq!(space.apply(&space.disks("/a"), &disk("a", 6)).await.code, 422, "a manager has a name");
}

#[tokio::test]
async fn fields_that_a_manager_no_longer_applies_are_removed() {
    let space = Space::new().await;
    let path = |manager: &str| space.widgets(&format!("/a?fieldManager={manager}"));
    let ports = |numbers: &[u32]| {
        widget("a", json!({"ports": numbers.iter().map(|it| json!({"number": it})).collect::<Value>()}))
    };
    space.apply(&path("one"), &ports(&[80, 81])).await;
    let both = space.apply(&path("two"), &ports(&[82])).await.body;
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 3, "elements of a map list have owners of their own");
    let less = space.apply(&path("one"), &ports(&[81])).await.body;
    let numbers: Vec<&Value> = less["spec"]["ports"].as_array().unwrap().iter().map(|it| &it["number"]).collect();
    assert_eq!(numbers, [&json!(81), &json!(82)]);
    let mut tags = widget("a", json!({"ports": [{"number": 81}], "tags": ["x"], "args": ["1"]}));
    space.apply(&path("one"), &tags).await;
    tags["spec"] = json!({"tags": ["y"]});
    let set = space.apply(&path("two"), &tags).await.body;
    assert_eq!(set["spec"]["tags"], json!(["x", "y"]), "sets are joined");
    tags["spec"] = json!({"args": ["2"]});
    assert_eq!(space.apply(&path("two"), &tags).await.code, 409, "atomic lists have one owner");
}

#[tokio::test]
async fn an_update_takes_over_and_apply_sees_it() {
    let space = Space::new().await;
    space.apply(&space.disks("/a?fieldManager=one"), &disk("a", 5)).await;
    let changed = space.merge(&space.disks("/a?fieldManager=hand"), &json!({"spec": {"sizeGb": 7}})).await.body;
    let managers: Vec<&Value> =
        changed["metadata"]["managedFields"].as_array().unwrap().iter().map(|it| &it["manager"]).collect();
    assert!(managers.contains(&&json!("hand")), "{managers:?}");
    let refused = space.apply(&space.disks("/a?fieldManager=one"), &disk("a", 5)).await;
    assert_eq!(refused.code, 409);
    assert!(refused.body["message"].as_str().unwrap().contains("conflict with \"hand\""), "{}", refused.body);
    let reset = space.merge(&space.disks("/a"), &json!({"metadata": {"managedFields": [{}]}})).await.body;
    assert!(reset["metadata"].get("managedFields").is_none(), "{reset}");
}

#[tokio::test]
async fn apply_to_status_owns_status_only() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    let mut wanted = disk("a", 9);
    wanted.as_object_mut().unwrap().remove("spec");
    wanted["status"] = json!({"phase": "Ready"});
    let object = space.apply(&space.disks("/a/status?fieldManager=controller"), &wanted).await;
    assert_eq!(object.code, 200, "{}", object.body);
    assert_eq!((&object.body["status"]["phase"], &object.body["spec"]["sizeGb"]), (&json!("Ready"), &json!(5)));
    let entries = object.body["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.iter().find(|it| it["subresource"] == "status").unwrap()["manager"], "controller");
    let code = space.apply(&space.disks("/none/status?fieldManager=controller"), &wanted).await.code;
    assert!(code == 404 || code == 400, "a status is not made without its object: {code}");
}

#[tokio::test]
async fn a_status_of_another_version_has_no_owner() {
    let space = Space::new().await;
    let made = space.create(&space.disks(""), &disk("a", 1)).await;
    assert!(made["metadata"]["managedFields"].is_array());
    let own = json!({"apiVersion": "test.example/v1", "status": {"phase": "Ready"}});
    let written = space.merge(&space.disks("/a/status"), &own).await;
    assert_eq!(written.code, 200, "{}", written.body);
    assert_eq!(written.body["metadata"]["managedFields"].as_array().map(Vec::len), Some(2));
    let other = json!({"apiVersion": "test.example/v2", "status": {"phase": "Lost"}});
    let written = space.merge(&space.disks("/a/status"), &other).await;
    assert_eq!(written.code, 200, "{}", written.body);
    assert_eq!(written.body["metadata"]["managedFields"], Value::Null, "the owners of these fields are unknown");
    assert_eq!(written.body["apiVersion"], "test.example/v1");
}

#[tokio::test]
async fn a_null_in_place_of_a_status_is_no_status() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    let (path, status) = (space.disks("/a"), space.disks("/a/status"));
    let applying = format!("{status}?fieldManager=one&force=true");
    let apply = async |status: Value| {
        let applied = json!({
            "apiVersion": "test.example/v1", "kind": "Disk", "metadata": {"name": "a"}, "status": status,
        });
        space.send(Method::PATCH, &applying, "application/apply-patch+yaml", applied.to_string()).await
    };
    let applied = apply(Value::Null).await;
    assert_eq!((applied.code, applied.body.get("status")), (200, None), "apply without a status: {}", applied.body);
    assert_eq!(space.get(&path).await.body.get("status"), None);
    let merged = space.merge(&status, &json!({"status": null})).await;
    assert_eq!((merged.code, merged.body.get("status")), (200, None), "merge patch without a status");
    let mut object = space.get(&path).await.body;
    object["status"] = Value::Null;
    let updated = space.put(&status, &object).await;
    assert_eq!((updated.code, updated.body.get("status")), (200, None), "update without a status");

    assert_eq!(space.merge(&status, &json!({"status": {"phase": "Ready"}})).await.code, 200);
    let applied = apply(Value::Null).await;
    assert_eq!((applied.code, &applied.body["status"]["phase"]), (200, &json!("Ready")), "others own it");
    let merged = space.merge(&status, &json!({"status": null})).await;
    assert_eq!((merged.code, merged.body.get("status")), (200, None), "merge patch takes it away");
}
