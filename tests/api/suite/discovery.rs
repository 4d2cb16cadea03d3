//! Discovery: the kinds that the server offers.

use serde_json::json;

use crate::support::Space;

#[tokio::test]
async fn plain_discovery_names_groups_kinds_and_subresources() {
    let space = Space::new().await;
    let groups = space.get("/apis").await.body;
    let found: Vec<&str> = groups["groups"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(found.contains(&"test.example"), "{found:?}");
    let list = space.get("/apis/test.example/v1").await.body;
    let resource = |name: &str| list["resources"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned();
    let disks = resource("disks").unwrap();
    assert_eq!(
        (&disks["kind"], &disks["namespaced"], &disks["shortNames"]),
        (&json!("Disk"), &json!(true), &json!(["dk"]))
    );
    assert_eq!((&disks["categories"], &disks["singularName"]), (&json!(["all"]), &json!("disk")));
    let mut verbs: Vec<&str> = disks["verbs"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    verbs.sort_unstable();
    assert_eq!(verbs, ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
    assert_eq!(resource("disks/status").unwrap()["kind"], "Disk");
    assert_eq!(resource("disks/scale").unwrap()["group"], "autoscaling");
    assert_eq!(resource("zones").unwrap()["namespaced"], false);
    assert_eq!(space.get("/apis/test.example").await.body["preferredVersion"]["version"], "v1");
    assert_eq!(space.get("/apis/none.example").await.code, 404);
    assert_eq!(space.get("/apis/none.example/v1").await.code, 404);
}

#[tokio::test]
async fn aggregated_discovery_is_for_clients_that_request_it() {
    let space = Space::new().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let list = space.get_as("/apis", accept).await.body;
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    let group = list["items"].as_array().unwrap().iter().find(|it| it["metadata"]["name"] == "test.example").unwrap();
    let disks =
        group["versions"][0]["resources"].as_array().unwrap().iter().find(|it| it["resource"] == "disks").unwrap();
    assert_eq!((&disks["responseKind"]["kind"], &disks["scope"]), (&json!("Disk"), &json!("Namespaced")));
    assert_eq!(space.get_as("/apis", "application/json").await.body["kind"], "APIGroupList");
}

#[tokio::test]
async fn schemas_are_published_with_their_hash() {
    let space = Space::new().await;
    let index = space.get("/openapi/v3").await.body;
    let address = index["paths"]["apis/test.example/v1"]["serverRelativeURL"].as_str().unwrap();
    assert!(address.starts_with("/openapi/v3/apis/test.example/v1?hash="), "{address}");
    let document = space.get(address).await;
    assert_eq!((document.code, document.body["openapi"].as_str().unwrap()), (200, "3.0.0"));
    let schemas = document.body["components"]["schemas"].as_object().unwrap();
    let disk = schemas.iter().find(|it| it.0.ends_with(".Disk")).unwrap().1;
    assert_eq!(
        disk["x-kubernetes-group-version-kind"][0],
        json!({"group": "test.example", "version": "v1", "kind": "Disk"})
    );
    assert_eq!(disk["properties"]["spec"]["properties"]["sizeGb"]["description"], "Size in gigabytes.");
    let old = space.get("/openapi/v2").await;
    assert_eq!((old.code, old.body["swagger"].as_str().unwrap()), (200, "2.0"));
    let definitions = old.body["definitions"].as_object().unwrap();
    assert!(definitions.keys().any(|it| it.ends_with(".Disk")), "{:?}", definitions.keys().collect::<Vec<_>>());
}

/// `make test-reference` writes them; without the original they cannot be accepted.
#[tokio::test]
async fn our_own_kinds_are_accepted() {
    let space = Space::new().await;
    let Some(dir) = std::env::var_os("EVROC_API_CRDS").filter(|_| space.is_original) else { return };
    let all = evroc_api_suite::server::definitions(dir.as_ref()).unwrap();
    assert!(all.len() > 10, "{} kinds", all.len());
    evroc_api_suite::server::install_kinds(&space.client, &all).await.unwrap();
    for definition in all {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let stored = space.get(&path).await.body;
        let conditions = stored["status"]["conditions"].as_array().unwrap();
        let is_bad = |it: &&serde_json::Value| it["type"] == "NonStructuralSchema" && it["status"] == "True";
        assert!(!conditions.iter().any(|it| is_bad(&it)), "{name}: {conditions:?}");
    }
}
