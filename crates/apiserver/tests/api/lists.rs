//! Lists: pages, revisions, selectors, shapes.

use serde_json::{Value, json};

use crate::support::{DISKS, TestServer, disk, names};

async fn with_disks(count: u32) -> (TestServer, crate::support::Client) {
    let (server, admin) = TestServer::with_demo().await;
    for number in 0..count {
        let mut wanted = disk(&format!("d{number:02}"), number + 1);
        wanted["metadata"]["labels"] = json!({"parity": if number % 2 == 0 { "even" } else { "odd" }});
        if number == 3 {
            wanted["spec"]["class"] = json!("fast");
        }
        admin.create(DISKS, &wanted).await;
    }
    (server, admin)
}

#[tokio::test]
async fn a_list_has_the_kind_and_revision() {
    let (_server, admin) = with_disks(3).await;
    let (code, list) = admin.get(DISKS).await;
    assert_eq!(code, 200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("DiskList"), &json!("test.example/v1")));
    assert_eq!(names(&list), ["d00", "d01", "d02"]);
    assert_eq!(list["metadata"]["resourceVersion"], list["items"][2]["metadata"]["resourceVersion"]);
    let (_, all) = admin.get("/apis/test.example/v1/disks").await;
    assert_eq!(all["items"], list["items"]);
}

#[tokio::test]
async fn pages_show_one_revision() {
    let (_server, admin) = with_disks(7).await;
    let (_, first) = admin.get(&format!("{DISKS}?limit=3")).await;
    assert_eq!(names(&first), ["d00", "d01", "d02"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // Changes meanwhile are not seen by the pages that follow.
    admin.delete(&format!("{DISKS}/d04")).await;
    admin.create(DISKS, &disk("d055", 1)).await;
    admin.merge(&format!("{DISKS}/d06"), &json!({"spec": {"sizeGb": 99}})).await;
    let next = |list: &Value| format!("{DISKS}?limit=3&continue={}", list["metadata"]["continue"].as_str().unwrap());
    let (code, second) = admin.get(&next(&first)).await;
    assert_eq!(code, 200, "{second}");
    assert_eq!(names(&second), ["d03", "d04", "d05"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (_, third) = admin.get(&next(&second)).await;
    assert_eq!(names(&third), ["d06"]);
    assert_eq!(third["items"][0]["spec"]["sizeGb"], 7, "as it was");
    assert_eq!(third["metadata"]["continue"], "");
    assert_eq!(admin.get(&format!("{DISKS}?limit=3&continue=nonsense")).await.0, 400);
}

#[tokio::test]
async fn lists_name_the_revision_they_want() {
    let (_server, admin) = with_disks(2).await;
    let (_, list) = admin.get(DISKS).await;
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    admin.create(DISKS, &disk("later", 1)).await;
    let (_, exact) = admin.get(&format!("{DISKS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&exact), ["d00", "d01"]);
    // A list of the newest state brings the cache there.
    admin.get(DISKS).await;
    let (_, newer) = admin.get(&format!("{DISKS}?resourceVersion={revision}")).await;
    assert_eq!(names(&newer), ["d00", "d01", "later"]);
    assert_eq!(admin.get(&format!("{DISKS}?resourceVersion=0")).await.0, 200);
    let (code, refused) = admin.get(&format!("{DISKS}?resourceVersion=999999")).await;
    assert_eq!(code, 504, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(admin.get(&format!("{DISKS}?resourceVersion=x")).await.0, 400);
    let (code, _) = admin.get(&format!("{DISKS}?resourceVersionMatch=Exact")).await;
    assert!(code == 400 || code == 422, "{code}");
}

#[tokio::test]
async fn selectors_narrow_lists() {
    let (_server, admin) = with_disks(5).await;
    let list = async |query: &str| {
        let (code, list) = admin.get(&format!("{DISKS}?{query}")).await;
        assert_eq!(code, 200, "{list}");
        names(&list).join(" ")
    };
    assert_eq!(list("labelSelector=parity%3Dodd").await, "d01 d03");
    assert_eq!(list("labelSelector=parity+notin+(odd)").await, "d00 d02 d04");
    assert_eq!(list("fieldSelector=metadata.name%3Dd02").await, "d02");
    assert_eq!(list("fieldSelector=spec.class%3Dfast").await, "d03");
    assert_eq!(list("fieldSelector=spec.class!%3Dfast&labelSelector=parity%3Dodd").await, "d01");
    let (_, page) = admin.get(&format!("{DISKS}?labelSelector=parity%3Deven&limit=2")).await;
    assert_eq!(names(&page), ["d00", "d02"]);
    assert!(page["metadata"].get("remainingItemCount").is_none(), "not known with selectors");
    let (code, _) = admin.get(&format!("{DISKS}?fieldSelector=spec.sizeGb%3D1")).await;
    assert_eq!(code, 400, "not selectable");
    assert_eq!(admin.get(&format!("{DISKS}?labelSelector=a%3D%3D%3Db")).await.0, 400);
}

#[tokio::test]
async fn tables_and_metadata_are_views() {
    let (_server, admin) = with_disks(2).await;
    let (code, table) = admin.get_as(DISKS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!(code, 200);
    assert_eq!(table["kind"], "Table");
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Size", "Class", "Phase", "Age"]);
    assert_eq!(table["rows"][0]["cells"][1], 1);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let (_, partial) = admin.get_as(DISKS, accept).await;
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][1]["metadata"]["name"], "d01");
    assert!(partial["items"][1].get("spec").is_none());
}

#[tokio::test]
async fn collections_are_deleted_by_selection() {
    let (_server, admin) = with_disks(4).await;
    let (code, deleted) = admin.delete(&format!("{DISKS}?labelSelector=parity%3Dodd")).await;
    assert_eq!(code, 200, "{deleted}");
    assert_eq!(names(&deleted), ["d01", "d03"]);
    let (_, list) = admin.get(DISKS).await;
    assert_eq!(names(&list), ["d00", "d02"]);
}

#[tokio::test]
async fn long_lists_are_compressed_on_request() {
    use http_body_util::BodyExt;
    use std::io::Read;
    let (_server, admin) = TestServer::with_demo().await;
    for number in 0..40 {
        let mut wanted = disk(&format!("d{number:02}"), 1);
        wanted["metadata"]["annotations"] = json!({"text": "x".repeat(5_000)});
        admin.create(DISKS, &wanted).await;
    }
    let request = http::Request::get(DISKS).header("accept-encoding", "gzip").body(Default::default()).unwrap();
    let response = admin.respond(request).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 40);
}
