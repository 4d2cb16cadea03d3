//! 410 Gone: the state before a compaction is not served any more.

use evroc_api_suite::server::Server;
use serde_json::{Value, json};

use crate::support::{Space, disk, names};

const EXPIRED: &str = "The resourceVersion for the provided list is too old.";
const EXPIRED_PAGE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

fn refusal(status: &Value) -> (&Value, &Value, &Value) {
    (&status["code"], &status["reason"], &status["message"])
}

#[tokio::test]
async fn compacted_revisions_cannot_be_read() {
    // A server of its own: other tests still need the history that it discards.
    let mut server = Server::from_environment().await.unwrap();
    if !server.is_own() {
        eprintln!("left out: a server that runs already cannot be made to compact");
        return server.stop().await.unwrap();
    }
    let mut space = Space::at(&server).await;
    for name in ["a", "b", "c", "d"] {
        space.create(&space.disks(""), &disk(name, 1)).await;
    }
    let first = space.get(&space.disks("?limit=2")).await.body;
    assert_eq!(names(&first), ["a", "b"]);
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    space.delete(&space.disks("/c")).await;
    let exact = space.disks(&format!("?resourceVersion={revision}&resourceVersionMatch=Exact"));
    assert_eq!(names(&space.get(&exact).await.body), ["a", "b", "c", "d"]);
    let next = |token: &str| space.disks(&format!("?limit=1&continue={token}"));
    assert_eq!(names(&space.get(&next(&token)).await.body), ["c"]);

    server.forget().await.unwrap();
    // Connections to the former server have ended.
    space.client = server.client().await.unwrap();
    let next = |token: &str| space.disks(&format!("?limit=1&continue={token}"));
    space.create(&space.disks(""), &disk("e", 1)).await;
    for query in
        ["&resourceVersionMatch=Exact", "&limit=1", "&resourceVersionMatch=Exact&fieldSelector=metadata.name%3Da"]
    {
        let refused = space.get(&space.disks(&format!("?resourceVersion={revision}{query}"))).await;
        assert_eq!(refused.code, 410, "{query}: {}", refused.body);
        assert_eq!(refusal(&refused.body), (&json!(410), &json!("Expired"), &json!(EXPIRED)), "{query}");
    }
    // A list of the newest state brings every cache there; what is not older than that revision is the newest, for lists and for one object.
    space.get(&space.disks("")).await;
    let newest = space.get(&space.disks(&format!("?resourceVersion={revision}"))).await.body;
    assert_eq!(names(&newest), ["a", "b", "d", "e"]);
    assert_eq!(space.get(&space.disks(&format!("/a?resourceVersion={revision}"))).await.code, 200);

    // A page whose list is forgotten names the token by which one goes on in the newest one.
    let refused = space.get(&next(&token)).await;
    assert_eq!(refused.code, 410, "{}", refused.body);
    assert_eq!(refusal(&refused.body), (&json!(410), &json!("Expired"), &json!(EXPIRED_PAGE)));
    let goes_on = refused.body["metadata"]["continue"].as_str().unwrap().to_owned();
    let page = space.get(&next(&goes_on)).await;
    assert_eq!(page.code, 200, "{}", page.body);
    assert_eq!(names(&page.body), ["d"]);
    space.delete(&space.disks("/e")).await;
    let last = space.get(&next(page.body["metadata"]["continue"].as_str().unwrap())).await.body;
    assert_eq!(names(&last), ["e"], "what follows is of the revision of that page");

    // A watch from there is refused in its stream.
    let mut events = space.watch(&space.disks(&format!("?watch=true&resourceVersion={revision}"))).await;
    let event = events.next().await.unwrap();
    assert_eq!(event["type"], "ERROR", "{event}");
    let (code, reason, message) = refusal(&event["object"]);
    assert_eq!((code, reason), (&json!(410), &json!("Expired")));
    let message = message.as_str().unwrap();
    assert!(message.starts_with(&format!("too old resource version: {revision} (")), "{message}");
    assert_eq!(events.next().await, None, "nothing follows");
    server.stop().await.unwrap();
}
