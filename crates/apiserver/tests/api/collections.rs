//! `deletecollection`.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::support::{DISKS, TestServer, disk, names};

#[tokio::test]
async fn a_collection_is_deleted_in_batches() {
    let (server, counts) = TestServer::observed(|builder| builder.without_controllers()).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    for number in 0..150 {
        let mut wanted = disk(&format!("d{number:03}"), 1);
        if number % 50 == 0 {
            wanted["metadata"]["finalizers"] = json!(["test.example/keeps"]);
        }
        wanted["metadata"]["labels"] = json!({"kept": (number % 10 == 9).to_string()});
        admin.create(DISKS, &wanted).await;
    }
    let before = counts.most_transactions.swap(0, Ordering::SeqCst);
    assert_eq!(before, 1, "creates came one after another");

    let (code, list) = admin.delete(&format!("{DISKS}?labelSelector=kept=false")).await;
    assert_eq!((code.as_u16(), &list["kind"]), (200, &json!("DiskList")));
    assert_eq!(names(&list).len(), 135);
    assert!(list["items"][0]["metadata"]["deletionTimestamp"].is_null(), "items are shown as they were");
    let at_once = counts.most_transactions.load(Ordering::SeqCst);
    assert!((16..=64).contains(&at_once), "{at_once} at once");

    let (_, left) = admin.get(DISKS).await;
    let (_, waits) = admin.get(&format!("{DISKS}/d050")).await;
    assert!(waits["metadata"]["deletionTimestamp"].is_string(), "it waits for its finalizer: {waits}");
    assert_eq!(names(&left).len(), 3 + 15, "what the selector leaves, and what waits for finalizers");
}

#[tokio::test]
async fn a_collection_is_not_deleted_against_its_precondition() {
    let (_server, admin) = TestServer::with_demo().await;
    for name in ["a", "b"] {
        admin.create(DISKS, &disk(name, 1)).await;
    }
    let options = json!({"preconditions": {"uid": "another"}});
    let (code, refused) = admin.send(http::Method::DELETE, DISKS, "application/json", options.to_string()).await;
    assert_eq!((code.as_u16(), &refused["reason"]), (409, &json!("Conflict")), "{refused}");
    assert_eq!(names(&admin.get(DISKS).await.1), ["a", "b"]);
    let (code, tried) = admin.delete(&format!("{DISKS}?dryRun=All")).await;
    assert_eq!((code.as_u16(), names(&tried)), (200, vec!["a", "b"]));
    assert_eq!(names(&admin.get(DISKS).await.1), ["a", "b"], "a dry run deletes nothing");
}
