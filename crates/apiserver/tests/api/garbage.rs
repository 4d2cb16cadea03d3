//! Garbage collection by owner references.

use serde_json::{Value, json};

use crate::support::{Client, DISKS, TestServer, disk, eventually, eventually_deleted};

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
    eventually_deleted(&admin, &format!("{DISKS}/child")).await;
    eventually_deleted(&admin, &format!("{DISKS}/grandchild")).await;
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
    eventually_deleted(&admin, &format!("{DISKS}/owner")).await;
    eventually_deleted(&admin, &format!("{DISKS}/child")).await;
}

#[tokio::test]
async fn orphans_stay_and_forget_their_owner() {
    let (_server, admin) = TestServer::with_demo().await;
    let owner = admin.create(DISKS, &disk("owner", 1)).await;
    admin.create(DISKS, &owned("child", &owner, false)).await;
    delete_with(&admin, "owner", "Orphan").await;
    eventually_deleted(&admin, &format!("{DISKS}/owner")).await;
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
    eventually_deleted(&admin, &format!("{DISKS}/one")).await;
    eventually_deleted(&admin, &format!("{DISKS}/two")).await;
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
    eventually_deleted(&admin, &format!("{others}/stray")).await;
    let mut reborn = owner.clone();
    reborn["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    admin.create(DISKS, &owned("of-the-dead", &reborn, false)).await;
    eventually_deleted(&admin, &format!("{DISKS}/of-the-dead")).await;
    // A kind that is not served cannot be looked up: nothing is deleted for it.
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": "1"}});
    admin.create(DISKS, &owned("of-a-pod", &pod, false)).await;
    admin.create(DISKS, &owned("last", &reborn, false)).await;
    eventually_deleted(&admin, &format!("{DISKS}/last")).await;
    assert_eq!(admin.get(&format!("{DISKS}/of-a-pod")).await.0, 200);
}

/// A small generator of numbers, so that a failure can be repeated from its seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test]
async fn in_random_families_the_objects_with_a_living_owner_survive() {
    const COUNT: u64 = 30;
    for seed in 1..=4 {
        let mut numbers = Numbers(seed);
        let (_server, admin) = TestServer::with_demo().await;
        let mut made: Vec<Value> = Vec::new();
        let mut owners: Vec<Vec<usize>> = Vec::new();
        for number in 0..COUNT {
            let mut wanted = disk(&format!("d{number}"), 1);
            let mut chosen: Vec<usize> = Vec::new();
            for _ in 0..numbers.below(3).min(number) {
                let owner = numbers.below(number) as usize;
                if !chosen.contains(&owner) {
                    chosen.push(owner);
                }
            }
            let references: Vec<Value> = chosen
                .iter()
                .map(|owner| owned("x", &made[*owner], numbers.below(2) == 0)["metadata"]["ownerReferences"][0].clone())
                .collect();
            wanted["metadata"]["ownerReferences"] = json!(references);
            made.push(admin.create(DISKS, &wanted).await);
            owners.push(chosen);
        }
        let mut is_alive = vec![true; COUNT as usize];
        for _ in 0..5 {
            let number = numbers.below(COUNT) as usize;
            is_alive[number] = false;
            let policy = ["Background", "Foreground"][numbers.below(2) as usize];
            let body = json!({"propagationPolicy": policy}).to_string();
            let path = format!("{DISKS}/d{number}");
            let (code, answer) = admin.send(http::Method::DELETE, &path, "application/json", body).await;
            assert!(code == 200 || code == 404, "{answer}");
        }
        // Owners come before those they own, so one pass finds who is left.
        for number in 0..COUNT as usize {
            let orphaned = !owners[number].is_empty() && owners[number].iter().all(|owner| !is_alive[*owner]);
            is_alive[number] &= !orphaned;
        }
        let expected: Vec<String> = (0..COUNT as usize).filter(|it| is_alive[*it]).map(|it| format!("d{it}")).collect();
        let list = eventually(&admin, DISKS, "down to who has a living owner", |_, list| {
            let mut left: Vec<String> = crate::support::names(list).into_iter().map(str::to_owned).collect();
            left.sort_by_key(|name| name[1..].parse::<u64>().unwrap());
            left == expected
        })
        .await;
        for object in list["items"].as_array().unwrap() {
            assert!(object["metadata"].get("deletionTimestamp").is_none(), "seed {seed}: {object}");
        }
    }
}
