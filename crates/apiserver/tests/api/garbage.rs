//! Garbage collection by owner references.

use serde_json::{Value, json};

use crate::support::{Client, DISKS, TestServer, disk, eventually, eventually_gone};

fn owned(name: &str, owner: &Value, blocks: bool) -> Value {
    let mut wanted = disk(name, 1);
    wanted["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocks,
    }]);
    wanted
}

async fn delete_with(client: &Client, name: &str, policy: &str) {
    let body = json!({"propagationPolicy": policy}).to_string();
    let (code, answer) = client.send(http::Method::DELETE, &format!("{DISKS}/{name}"), "application/json", body).await;
    assert_eq!(code, 200, "{answer}");
}

#[tokio::test]
async fn in_the_background_dependents_follow() {
    let (_server, admin) = TestServer::with_demo().await;
    let owner = admin.create(DISKS, &disk("owner", 1)).await;
    let child = admin.create(DISKS, &owned("child", &owner, false)).await;
    admin.create(DISKS, &owned("grandchild", &child, true)).await;
    delete_with(&admin, "owner", "Background").await;
    eventually_gone(&admin, &format!("{DISKS}/child")).await;
    eventually_gone(&admin, &format!("{DISKS}/grandchild")).await;
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let (_server, admin) = TestServer::with_demo().await;
    let owner = admin.create(DISKS, &disk("owner", 1)).await;
    let mut child = owned("child", &owner, true);
    child["metadata"]["finalizers"] = json!(["test.example/hold"]);
    admin.create(DISKS, &child).await;
    delete_with(&admin, "owner", "Foreground").await;
    let deleting = |_, it: &Value| it["metadata"]["deletionTimestamp"].is_string();
    eventually(&admin, &format!("{DISKS}/child"), "being deleted", deleting).await;
    assert_eq!(admin.get(&format!("{DISKS}/owner")).await.0, 200, "it waits for its child");
    admin.merge(&format!("{DISKS}/child"), &json!({"metadata": {"finalizers": null}})).await;
    eventually_gone(&admin, &format!("{DISKS}/owner")).await;
    eventually_gone(&admin, &format!("{DISKS}/child")).await;
}

#[tokio::test]
async fn orphans_stay_and_forget_their_owner() {
    let (_server, admin) = TestServer::with_demo().await;
    let owner = admin.create(DISKS, &disk("owner", 1)).await;
    admin.create(DISKS, &owned("child", &owner, false)).await;
    delete_with(&admin, "owner", "Orphan").await;
    eventually_gone(&admin, &format!("{DISKS}/owner")).await;
    let (code, child) = admin.get(&format!("{DISKS}/child")).await;
    assert_eq!(code, 200);
    assert!(child["metadata"].get("ownerReferences").is_none(), "{child}");
}

#[tokio::test]
async fn cycles_go_in_the_foreground_too() {
    let (_server, admin) = TestServer::with_demo().await;
    let one = admin.create(DISKS, &disk("one", 1)).await;
    let two = admin.create(DISKS, &owned("two", &one, true)).await;
    let references = owned("one", &two, true)["metadata"]["ownerReferences"].clone();
    admin.merge(&format!("{DISKS}/one"), &json!({"metadata": {"ownerReferences": references}})).await;
    delete_with(&admin, "one", "Foreground").await;
    eventually_gone(&admin, &format!("{DISKS}/one")).await;
    eventually_gone(&admin, &format!("{DISKS}/two")).await;
}

#[tokio::test]
async fn an_owner_that_does_not_exist_or_lives_elsewhere_is_none() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.make_namespace("other").await;
    let owner = admin.create(DISKS, &disk("owner", 1)).await;
    let mut stray = owned("stray", &owner, false);
    stray["metadata"]["namespace"] = json!("other");
    let others = "/apis/test.example/v1/namespaces/other/disks";
    admin.create(others, &stray).await;
    eventually_gone(&admin, &format!("{others}/stray")).await;
    let mut reborn = owner.clone();
    reborn["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    admin.create(DISKS, &owned("of-the-dead", &reborn, false)).await;
    eventually_gone(&admin, &format!("{DISKS}/of-the-dead")).await;
    // A kind that is not served cannot be looked up: nothing is deleted for it.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "1"}});
    admin.create(DISKS, &owned("of-a-pod", &pod, false)).await;
    admin.create(DISKS, &owned("last", &reborn, false)).await;
    eventually_gone(&admin, &format!("{DISKS}/last")).await;
    assert_eq!(admin.get(&format!("{DISKS}/of-a-pod")).await.0, 200);
}
