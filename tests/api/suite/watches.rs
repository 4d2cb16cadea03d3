//! Watches: which events are sent, from where, and when they end.

use serde_json::{Value, json};

use crate::support::{Space, disk};

#[tokio::test]
async fn a_watch_from_a_list_sees_every_change_in_order() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("before", 1)).await;
    let list = space.get(&space.disks("")).await.body;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut events = space.watch(&space.disks(&format!("?watch=true&resourceVersion={revision}"))).await;
    space.create(&space.disks(""), &disk("a", 1)).await;
    space.merge(&space.disks("/a"), &json!({"spec": {"sizeGb": 2}})).await;
    space.delete(&space.disks("/a")).await;
    let mut last = 0;
    for (kind, size) in [("ADDED", 1), ("MODIFIED", 2), ("DELETED", 2)] {
        let event = events.next().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["spec"]["sizeGb"]), (&json!(kind), &json!(size)));
        let number = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(number > last, "revisions grow, that of a deletion too");
        last = number;
    }
}

#[tokio::test]
async fn without_a_revision_the_state_comes_first() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 1)).await;
    // A list of the newest state brings every cache there.
    space.get(&space.disks("")).await;
    for query in ["watch=true", "watch=1&resourceVersion=0"] {
        let mut events = space.watch(&space.disks(&format!("?{query}"))).await;
        assert_eq!(events.brief().await, "ADDED a", "{query}");
    }
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 1)).await;
    let query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut events = space.watch(&space.disks(&format!("?{query}"))).await;
    assert_eq!(events.brief().await, "ADDED a");
    let mark = events.next().await.unwrap();
    assert_eq!((&mark["type"], &mark["object"]["kind"]), (&json!("BOOKMARK"), &json!("Disk")));
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    space.create(&space.disks(""), &disk("b", 1)).await;
    assert_eq!(events.brief().await, "ADDED b");
    assert_eq!(space.get(&space.disks("?watch=true&sendInitialEvents=true")).await.code, 422);
}

#[tokio::test]
async fn selectors_turn_changes_into_arrivals_and_departures() {
    let space = Space::new().await;
    let mut events = space.watch(&space.disks("?watch=true&labelSelector=x%3Dy")).await;
    space.create(&space.disks(""), &disk("a", 1)).await;
    for value in ["y", "z", "y"] {
        let labelled = space.merge(&space.disks("/a"), &json!({"metadata": {"labels": {"x": value}}})).await;
        assert_eq!(labelled.code, 200);
    }
    space.merge(&space.disks("/a"), &json!({"spec": {"sizeGb": 3}})).await;
    space.delete(&space.disks("/a")).await;
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
    let (space, other) = (Space::new().await, Space::new().await);
    let mut events = space.watch(&space.disks("?watch=true")).await;
    other.create(&other.disks(""), &disk("x", 1)).await;
    space.create(&space.disks(""), &disk("a", 1)).await;
    assert_eq!(events.brief().await, "ADDED a");
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let space = Space::new().await;
    let mut events = space.watch(&space.disks("?watch=true&timeoutSeconds=1&allowWatchBookmarks=true")).await;
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event["type"].clone());
    }
    assert!(seen.iter().all(|it| it == "BOOKMARK"), "{seen:?}");
}

#[tokio::test]
async fn concurrent_watchers_see_the_same() {
    let space = Space::new().await;
    let mut watchers = Vec::new();
    for _ in 0..8 {
        watchers.push(space.watch(&space.disks("?watch=true")).await);
    }
    let writes = (0..30).map(|number| {
        let space = &space;
        async move { space.create(&space.disks(""), &disk(&format!("d{number}"), 1)).await }
    });
    futures::future::join_all(writes).await;
    let mut first: Vec<Value> = Vec::new();
    for (position, watcher) in watchers.iter_mut().enumerate() {
        let mut seen = Vec::new();
        for _ in 0..30 {
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
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 1)).await;
    space.get(&space.disks("")).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut events = space.client.watch(&space.disks("?watch=true"), accept).await.unwrap().unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((&event["type"], &event["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}
