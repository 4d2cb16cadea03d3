//! ResourceQuota: the number of objects in a namespace, never exceeded.

use serde_json::{Value, json};

use crate::support::{DISKS, TestServer, disk, eventually, eventually_deleted, names};

const QUOTAS: &str = "/api/v1/namespaces/demo/resourcequotas";

fn quota(name: &str, hard: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}})
}

#[tokio::test]
async fn creates_over_the_quota_are_refused_and_room_can_be_made() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("before", 1)).await;
    let made =
        admin.create(QUOTAS, &quota("few", &json!({"count/disks.test.example": 2, "count/configmaps": "1k"}))).await;
    assert_eq!(made["spec"]["hard"]["count/disks.test.example"], "2");
    admin.create(DISKS, &disk("a", 1)).await;
    for (how, (code, refusal)) in [
        ("create", admin.post(DISKS, &disk("b", 1)).await),
        ("dry run", admin.post(&format!("{DISKS}?dryRun=All"), &disk("b", 1)).await),
        ("apply", admin.apply(&format!("{DISKS}/b?fieldManager=suite"), &disk("b", 1)).await),
    ] {
        assert_eq!((code.as_u16(), refusal["reason"].as_str()), (403, Some("Forbidden")), "{how}: {refusal}");
        let expected = "disks.test.example \"b\" is forbidden: exceeded quota: few, requested: count/disks.test.example=1, used: count/disks.test.example=2, limited: count/disks.test.example=2";
        assert_eq!(refusal["message"], expected, "{how}");
    }
    assert_eq!(
        admin.merge(&format!("{DISKS}/a"), &json!({"spec": {"sizeGb": 2}})).await.0,
        200,
        "existing objects may change"
    );
    let one = |used: &'static str| move |_, quota: &Value| quota["status"]["used"]["count/disks.test.example"] == used;
    let path = format!("{QUOTAS}/few");
    let seen = eventually(&admin, &path, "two used", one("2")).await;
    assert_eq!(
        seen["status"],
        json!({"hard": {"count/disks.test.example": "2", "count/configmaps": "1k"},
        "used": {"count/configmaps": "0", "count/disks.test.example": "2"}})
    );
    admin.delete(&format!("{DISKS}/before")).await;
    admin.create(DISKS, &disk("b", 1)).await;
    eventually(&admin, &path, "two used", one("2")).await;
    // A higher limit holds at once, and none does when the quota is deleted.
    admin.merge(&path, &json!({"spec": {"hard": {"count/disks.test.example": "3"}}})).await;
    admin.create(DISKS, &disk("c", 1)).await;
    assert_eq!(admin.post(DISKS, &disk("d", 1)).await.0, 403);
    admin.delete(&path).await;
    admin.create(DISKS, &disk("d", 1)).await;
    // In a new quota of the same name every existing object counts.
    admin.create(QUOTAS, &quota("few", &json!({"count/disks.test.example": "4"}))).await;
    assert_eq!(admin.post(DISKS, &disk("e", 1)).await.0, 403);
}

#[tokio::test]
async fn many_at_once_never_exceed_it() {
    const LIMIT: usize = 5;
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(QUOTAS, &quota("few", &json!({"count/disks.test.example": LIMIT}))).await;
    for round in 0..3 {
        let attempts = (0..40).map(|index| {
            let admin = admin.clone();
            async move { admin.post(DISKS, &disk(&format!("d-{round}-{index}"), 1)).await.0.as_u16() }
        });
        let codes = futures::future::join_all(attempts).await;
        let count = |code: u16| codes.iter().filter(|it| **it == code).count();
        assert_eq!((count(201), count(403)), (LIMIT, 40 - LIMIT), "{codes:?}");
        let (_, list) = admin.get(DISKS).await;
        assert_eq!(names(&list).len(), LIMIT);
        admin.delete(DISKS).await;
        for name in names(&list) {
            eventually_deleted(&admin, &format!("{DISKS}/{name}")).await;
        }
    }
}

#[tokio::test]
async fn a_limit_must_be_a_number_and_the_tightest_of_two_holds() {
    let (_server, admin) = TestServer::with_demo().await;
    for wrong in ["-1", "1.5", "many"] {
        let (code, refusal) = admin.post(QUOTAS, &quota("q", &json!({"count/disks.test.example": wrong}))).await;
        assert_eq!(code, 422, "{wrong}: {refusal}");
        assert!(refusal["message"].as_str().unwrap().contains("spec.hard"), "{refusal}");
    }
    admin.create(QUOTAS, &quota("wide", &json!({"count/disks.test.example": "9"}))).await;
    admin.create(QUOTAS, &quota("narrow", &json!({"count/disks.test.example": "0", "cpu": "500m"}))).await;
    let (code, refusal) = admin.post(DISKS, &disk("a", 1)).await;
    assert_eq!(code, 403);
    assert!(refusal["message"].as_str().unwrap().contains("exceeded quota: narrow"), "{refusal}");
    // Other namespaces have quotas of their own.
    admin.make_namespace("other").await;
    let mut other = disk("a", 1);
    other["metadata"]["namespace"] = json!("other");
    admin.create("/apis/test.example/v1/namespaces/other/disks", &other).await;
}
