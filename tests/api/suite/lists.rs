//! Lists: pages, revisions, selectors, shapes.

use serde_json::{Value, json};

use crate::support::{Space, disk, names};

#[tokio::test]
async fn a_list_has_the_kind_and_revision() {
    let space = Space::with_disks(3).await;
    let list = space.get(&space.disks("")).await.body;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("DiskList"), &json!("test.example/v1")));
    assert_eq!(names(&list), ["d00", "d01", "d02"]);
    let number = |value: &Value| value["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&list) >= number(&list["items"][2]));
}

#[tokio::test]
async fn pages_show_one_revision() {
    let space = Space::with_disks(7).await;
    let first = space.get(&space.disks("?limit=3")).await.body;
    assert_eq!(names(&first), ["d00", "d01", "d02"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // Changes meanwhile are not seen by the pages that follow.
    space.delete(&space.disks("/d04")).await;
    space.create(&space.disks(""), &disk("d055", 1)).await;
    space.merge(&space.disks("/d06"), &json!({"spec": {"sizeGb": 99}})).await;
    let next =
        |list: &Value| space.disks(&format!("?limit=3&continue={}", list["metadata"]["continue"].as_str().unwrap()));
    let second = space.get(&next(&first)).await;
    assert_eq!(second.code, 200, "{}", second.body);
    assert_eq!(names(&second.body), ["d03", "d04", "d05"]);
    assert_eq!(second.body["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let third = space.get(&next(&second.body)).await.body;
    assert_eq!(names(&third), ["d06"]);
    assert_eq!(third["items"][0]["spec"]["sizeGb"], 7, "as it was");
    assert_eq!(third["metadata"]["continue"].as_str().unwrap_or_default(), "");
    assert_eq!(space.get(&space.disks("?limit=3&continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn lists_name_the_revision_they_want() {
    let space = Space::with_disks(2).await;
    let list = space.get(&space.disks("")).await.body;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    space.create(&space.disks(""), &disk("later", 1)).await;
    let exact = space.get(&space.disks(&format!("?resourceVersion={revision}&resourceVersionMatch=Exact"))).await.body;
    assert_eq!(names(&exact), ["d00", "d01"]);
    // A list of the newest state brings every cache there.
    space.get(&space.disks("")).await;
    let newer = space.get(&space.disks(&format!("?resourceVersion={revision}"))).await.body;
    assert_eq!(names(&newer), ["d00", "d01", "later"]);
    assert_eq!(space.get(&space.disks("?resourceVersion=0")).await.code, 200);
    for query in ["", "&limit=1", "&resourceVersionMatch=Exact"] {
        let refused = space.get(&space.disks(&format!("?resourceVersion=99999999{query}"))).await;
        assert_eq!(refused.code, 504, "{}", refused.body);
        assert_eq!(refused.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        assert_eq!(refused.body["details"]["retryAfterSeconds"], 1, "{query}: {}", refused.body);
    }
    assert_eq!(space.get(&space.disks("?resourceVersionMatch=Exact")).await.code, 422);
    // Of one object the store is asked, which knows at once and does not say when to come back.
    for (query, retry) in [("&limit=1", Value::Null), ("&resourceVersionMatch=Exact", Value::Null), ("", json!(1))] {
        let one = space.disks(&format!("?fieldSelector=metadata.name%3Dd01&resourceVersion=99999999{query}"));
        let refused = space.get(&one).await;
        assert_eq!((refused.code, &refused.body["details"]["retryAfterSeconds"]), (504, &retry), "{query}");
    }
    // A limit makes a revision exact, but for one object it does not.
    space.delete(&space.disks("/d01")).await;
    let before = space.get(&space.disks(&format!("?resourceVersion={revision}&limit=5"))).await.body;
    assert_eq!(names(&before), ["d00", "d01"]);
    let one = format!("?fieldSelector=metadata.name%3Dd01&resourceVersion={revision}");
    assert!(names(&space.get(&space.disks(&format!("{one}&limit=5"))).await.body).is_empty());
    let exact = space.get(&space.disks(&format!("{one}&resourceVersionMatch=Exact"))).await.body;
    assert_eq!(names(&exact), ["d01"]);
}

#[tokio::test]
async fn conflicting_parameters_are_reported_before_fields_that_cannot_be_selected_by() {
    let space = Space::new().await;
    for (query, code) in [
        ("fieldSelector=spec.odd%3D1", 400),
        ("fieldSelector=spec.odd%3D1&resourceVersionMatch=Exact", 422),
        ("fieldSelector=spec.odd&resourceVersionMatch=Exact", 400),
        ("watch=true&fieldSelector=spec.odd%3D1&resourceVersionMatch=Exact", 422),
    ] {
        let refused = space.get(&space.disks(&format!("?{query}"))).await;
        assert_eq!(refused.code, code, "{query}: {}", refused.body);
    }
}

#[tokio::test]
async fn selectors_narrow_lists() {
    let space = Space::with_disks(5).await;
    let list = async |query: &str| {
        let list = space.get(&space.disks(&format!("?{query}"))).await;
        assert_eq!(list.code, 200, "{}", list.body);
        names(&list.body).join(" ")
    };
    assert_eq!(list("labelSelector=parity%3Dodd").await, "d01 d03");
    assert_eq!(list("labelSelector=parity+notin+(odd)").await, "d00 d02 d04");
    assert_eq!(list("fieldSelector=metadata.name%3Dd02").await, "d02");
    assert_eq!(list("fieldSelector=spec.class%3Dfast").await, "d03");
    assert_eq!(list("fieldSelector=spec.class!%3Dfast&labelSelector=parity%3Dodd").await, "d01");
    let page = space.get(&space.disks("?labelSelector=parity%3Deven&limit=2")).await.body;
    assert_eq!(names(&page), ["d00", "d02"]);
    assert!(page["metadata"].get("remainingItemCount").is_none(), "not known with selectors");
    assert_eq!(space.get(&space.disks("?fieldSelector=spec.sizeGb%3D1")).await.code, 400, "not selectable");
    assert_eq!(space.get(&space.disks("?labelSelector=a%3D%3D%3Db")).await.code, 400);
}

#[tokio::test]
async fn tables_and_metadata_are_views() {
    let space = Space::with_disks(2).await;
    let table = space.get_as(&space.disks(""), "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!((table.code, &table.body["kind"]), (200, &json!("Table")));
    let columns: Vec<&str> =
        table.body["columnDefinitions"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Size", "Class", "Phase", "Age"]);
    assert_eq!(table.body["rows"][0]["cells"][1], 1);
    assert_eq!(table.body["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial = space.get_as(&space.disks(""), accept).await.body;
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][1]["metadata"]["name"], "d01");
    assert!(partial["items"][1].get("spec").is_none());
}

#[tokio::test]
async fn collections_are_deleted_by_selection() {
    let space = Space::with_disks(4).await;
    let deleted = space.delete(&space.disks("?labelSelector=parity%3Dodd")).await;
    assert_eq!(deleted.code, 200, "{}", deleted.body);
    assert_eq!(names(&deleted.body), ["d01", "d03"]);
    assert_eq!(names(&space.get(&space.disks("")).await.body), ["d00", "d02"]);
}

#[tokio::test]
async fn long_lists_are_compressed_on_request() {
    let space = Space::new().await;
    let mut wanted = disk("a", 1);
    wanted["metadata"]["annotations"] = json!({"text": "x".repeat(200_000)});
    space.create(&space.disks(""), &wanted).await;
    let request =
        http::Request::get(space.disks("")).header("accept-encoding", "gzip").body(Default::default()).unwrap();
    let answer = space.client.respond(request).await.unwrap();
    assert_eq!(answer.header_values("content-encoding"), ["gzip"]);
}
