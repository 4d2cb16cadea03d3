//! Watches: which events are sent, from where, and when they end.

use serde_json::json;

use crate::support::{DISKS, TestServer, disk};

#[tokio::test]
async fn a_watch_from_a_list_sees_every_change_in_order() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("before", 1)).await;
    let (_, list) = admin.get(DISKS).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut events = admin.watch(&format!("{DISKS}?watch=true&resourceVersion={revision}")).await;
    admin.create(DISKS, &disk("a", 1)).await;
    admin.merge(&format!("{DISKS}/a"), &json!({"spec": {"sizeGb": 2}})).await;
    admin.delete(&format!("{DISKS}/a")).await;
    let added = events.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
    let modified = events.next().await.unwrap();
    assert_eq!((&modified["type"], &modified["object"]["spec"]["sizeGb"]), (&json!("MODIFIED"), &json!(2)));
    let deleted = events.next().await.unwrap();
    assert_eq!((&deleted["type"], &deleted["object"]["spec"]["sizeGb"]), (&json!("DELETED"), &json!(2)));
    let number = |event: &serde_json::Value| -> u64 {
        event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    };
    assert!(number(&added) < number(&modified) && number(&modified) < number(&deleted));
}

#[tokio::test]
async fn without_a_revision_the_state_comes_first() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 1)).await;
    for query in ["watch=true", "watch=1&resourceVersion=0"] {
        let mut events = admin.watch(&format!("{DISKS}?{query}")).await;
        assert_eq!(events.brief().await, "ADDED a", "{query}");
    }
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 1)).await;
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = admin.watch(&format!("{DISKS}?{query}")).await;
    assert_eq!(events.brief().await, "ADDED a");
    let mark = events.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["kind"], "Disk");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    admin.create(DISKS, &disk("b", 1)).await;
    assert_eq!(events.brief().await, "ADDED b");
    let (code, _) = admin.get(&format!("{DISKS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn selectors_turn_changes_into_arrivals_and_departures() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut events = admin.watch(&format!("{DISKS}?watch=true&labelSelector=x%3Dy")).await;
    admin.create(DISKS, &disk("a", 1)).await;
    let label = async |value: serde_json::Value| {
        let (code, _) = admin.merge(&format!("{DISKS}/a"), &json!({"metadata": {"labels": {"x": value}}})).await;
        assert_eq!(code, 200);
    };
    label(json!("y")).await;
    label(json!("z")).await;
    label(json!("y")).await;
    admin.merge(&format!("{DISKS}/a"), &json!({"spec": {"sizeGb": 3}})).await;
    admin.delete(&format!("{DISKS}/a")).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        let event = events.next().await.unwrap();
        let label = event["object"]["metadata"]["labels"]["x"].as_str().unwrap().to_owned();
        seen.push(format!("{} {label}", event["type"].as_str().unwrap()));
    }
    assert_eq!(seen, ["ADDED y", "DELETED y", "ADDED y", "MODIFIED y", "DELETED y"]);
}

#[tokio::test]
async fn a_watch_sees_its_namespace_only() {
    let (_server, admin) = TestServer::with_demo().await;
    admin.make_namespace("other").await;
    let mut events = admin.watch(&format!("{DISKS}?watch=true")).await;
    let mut elsewhere = disk("x", 1);
    elsewhere["metadata"]["namespace"] = json!("other");
    admin.create("/apis/test.example/v1/namespaces/other/disks", &elsewhere).await;
    admin.create(DISKS, &disk("a", 1)).await;
    assert_eq!(events.brief().await, "ADDED a");
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut events = admin.watch(&format!("{DISKS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true")).await;
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event["type"].clone());
    }
    assert!(seen.iter().all(|it| it == "BOOKMARK"), "{seen:?}");
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_gets_an_error() {
    let (server, admin) = TestServer::with_demo().await;
    for number in 0..3 {
        admin.create(DISKS, &disk(&format!("a{number}"), 1)).await;
    }
    // A new server begins its history where it starts.
    let TestServer { api, state } = server;
    api.shut_down();
    drop((api, admin));
    let server = TestServer::start_over(state, |it| it).await;
    let admin = server.admin();
    let mut events = admin.watch(&format!("{DISKS}?watch=true&resourceVersion=1")).await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn concurrent_watchers_see_the_same_bytes() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        watchers.push(admin.watch(&format!("{DISKS}?watch=true")).await);
    }
    let writes = (0..50).map(|number| {
        let admin = admin.clone();
        async move { admin.create(DISKS, &disk(&format!("d{number}"), 1)).await }
    });
    futures::future::join_all(writes).await;
    let mut first = Vec::new();
    for (position, watcher) in watchers.iter_mut().enumerate() {
        let mut seen = Vec::new();
        for _ in 0..50 {
            seen.push(watcher.next().await.unwrap());
        }
        if position == 0 {
            first = seen;
        } else {
            assert_eq!(seen, first);
        }
    }
}

#[tokio::test]
async fn a_watch_can_send_tables() {
    use http_body_util::BodyExt;
    let (_server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 1)).await;
    let request = http::Request::get(format!("{DISKS}?watch=true"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Default::default())
        .unwrap();
    let mut body = admin.respond(request).await.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let event: serde_json::Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_ended_and_delays_no_other() {
    let (_server, admin) = TestServer::with_demo().await;
    let mut slow = admin.watch(&format!("{DISKS}?watch=true")).await;
    let mut quick = admin.watch(&format!("{DISKS}?watch=true")).await;
    let mut wanted = disk("a", 1);
    wanted["metadata"]["annotations"] = json!({"text": "x".repeat(200_000)});
    admin.create(DISKS, &wanted).await;
    assert_eq!(quick.brief().await, "ADDED a");
    // More than the history holds.
    for size in 2..120 {
        admin.merge(&format!("{DISKS}/a"), &json!({"spec": {"sizeGb": size}})).await;
        assert_eq!(quick.next().await.unwrap()["object"]["spec"]["sizeGb"], size);
    }
    let mut last = None;
    while let Some(event) = slow.next().await {
        last = Some(event);
    }
    let last = last.unwrap();
    assert_eq!((&last["type"], &last["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
}
