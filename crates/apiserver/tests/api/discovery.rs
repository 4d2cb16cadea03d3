//! Discovery: the kinds that the server offers.

use serde_json::{Value, json};

use crate::support::TestServer;

#[tokio::test]
async fn plain_discovery_names_groups_kinds_and_subresources() {
    let server = TestServer::start().await;
    let admin = server.admin();
    assert_eq!(admin.get("/api").await.1["versions"], json!(["v1"]));
    let (_, groups) = admin.get("/apis").await;
    let found: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(found.contains(&"test.example") && found.contains(&"coordination.k8s.io"), "{found:?}");
    let (_, list) = admin.get("/apis/test.example/v1").await;
    let resource = |name: &str| list["resources"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned();
    let disks = resource("disks").unwrap();
    assert_eq!(
        (&disks["kind"], &disks["namespaced"], &disks["shortNames"]),
        (&json!("Disk"), &json!(true), &json!(["dk"]))
    );
    assert_eq!(disks["categories"], json!(["all"]));
    assert!(resource("disks/status").is_some());
    assert_eq!(resource("disks/scale").unwrap()["group"], "autoscaling");
    assert_eq!(resource("zones").unwrap()["namespaced"], false);
    assert_eq!(admin.get("/apis/test.example").await.1["preferredVersion"]["version"], "v1");
    let (_, core) = admin.get("/api/v1").await;
    let names: Vec<&Value> = core["resources"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert!(!names.iter().any(|it| *it == "services" || *it == "pods"), "{names:?}");
    assert_eq!(admin.get("/apis/none.example").await.0, 404);
    assert_eq!(admin.get("/apis/none.example/v1").await.0, 404);
}

#[tokio::test]
async fn aggregated_discovery_is_for_clients_that_request_it() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let (_, list) = admin.get_as("/apis", accept).await;
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    let group = list["items"].as_array().unwrap().iter().find(|it| it["metadata"]["name"] == "test.example").unwrap();
    assert_eq!(group["versions"][0]["resources"][0]["resource"], "disks");
    assert_eq!(group["versions"][0]["resources"][0]["responseKind"]["kind"], "Disk");
    let (_, list) = admin.get_as("/apis", "application/json").await;
    assert_eq!(list["kind"], "APIGroupList");
    assert_eq!(admin.get_as("/apis", "application/xml").await.0, 406);
}

#[tokio::test]
async fn the_version_is_a_kubernetes_version() {
    let server = TestServer::start().await;
    let (code, version) = server.admin().get("/version").await;
    assert_eq!(code, 200);
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1."), "{version}");
}

#[tokio::test]
async fn schemas_are_published_with_their_hash() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let (_, index) = admin.get("/openapi/v3").await;
    let address = index["paths"]["apis/test.example/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(address.starts_with("/openapi/v3/apis/test.example/v1?hash="), "{address}");
    let (code, document) = admin.get(address).await;
    assert_eq!((code.as_u16(), document["openapi"].as_str().unwrap()), (200, "3.0.0"));
    let request = http::Request::get(address).body(Default::default()).unwrap();
    let response = admin.respond(request).await;
    assert!(response.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    let request = http::Request::get("/openapi/v3/apis/test.example/v1?hash=OLD").body(Default::default()).unwrap();
    let response = admin.respond(request).await;
    assert_eq!((response.status().as_u16(), response.headers()["location"].to_str().unwrap()), (301, address));
    let (code, document) = admin.get("/openapi/v2").await;
    assert_eq!((code.as_u16(), document["swagger"].as_str().unwrap()), (200, "2.0"));
    let request = http::Request::get("/openapi/v2").body(Default::default()).unwrap();
    let tag = admin.respond(request).await.headers()["etag"].clone();
    let request = http::Request::get("/openapi/v2").header("if-none-match", tag).body(Default::default()).unwrap();
    assert_eq!(admin.respond(request).await.status(), 304);
}
