use evroc_registry::{OCI_INDEX, OCI_MANIFEST};
use serde_json::json;

use crate::support::{TestRegistry, digest};

#[tokio::test]
async fn the_base_path_identifies_a_registry() {
    let registry = TestRegistry::new().await;
    for path in ["/v2", "/v2/"] {
        assert_eq!(registry.get(path).await.expect(200).json(), json!({}));
        registry.head(path).await.expect(200);
    }
    registry.get("/v2/a/b").await.refused(404, "UNSUPPORTED");
    registry.delete("/v2/").await.refused(405, "UNSUPPORTED");
    registry.get("/v2/UPPER/tags/list").await.refused(400, "NAME_INVALID");
    registry.get("/v2/a/../../etc/tags/list").await.refused(400, "NAME_INVALID");
}

#[tokio::test]
async fn tags_come_in_pages() {
    let registry = TestRegistry::new().await;
    registry.get("/v2/a/tags/list").await.refused(404, "NAME_UNKNOWN");
    let manifest = registry.image("a", "1").await.to_string();
    for tag in ["v10", "v2", "latest", "v1", "A"] {
        registry.put_manifest("a", tag, OCI_MANIFEST, manifest.clone()).await.expect(201);
    }
    let all = registry.get("/v2/a/tags/list").await.expect(200).json();
    assert_eq!(all, json!({ "name": "a", "tags": ["A", "latest", "v1", "v10", "v2"] }));

    let mut path = "/v2/a/tags/list?n=2".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = registry.get(&path).await.expect(200);
        pages.push(page.json()["tags"].clone());
        let Some(link) = page.headers.get("link") else { break };
        let link = link.to_str().expect("text");
        path = link.strip_prefix('<').and_then(|l| l.strip_suffix(">; rel=\"next\"")).expect("link").to_owned();
    }
    assert_eq!(json!(pages), json!([["A", "latest"], ["v1", "v10"], ["v2"]]));
    let none = registry.get("/v2/a/tags/list?n=0").await.expect(200).json();
    assert_eq!(none["tags"], json!([]));
    let after = registry.get("/v2/a/tags/list?last=v1").await.expect(200).json();
    assert_eq!(after["tags"], json!(["v10", "v2"]));
    registry.get("/v2/a/tags/list?n=x").await.refused(400, "UNSUPPORTED");
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let registry = TestRegistry::new().await;
    let subject = digest(b"a subject that need not exist");
    let path = format!("/v2/a/referrers/{subject}");
    let none = registry.get(&path).await.expect(200);
    assert_eq!(none.header("content-type"), OCI_INDEX);
    assert_eq!(none.json(), json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));

    let mut pushed = Vec::new();
    for kind in ["application/x.signature", "application/x.sbom"] {
        let mut manifest = registry.image("a", kind).await;
        manifest["artifactType"] = kind.into();
        manifest["annotations"] = json!({ "kind": kind });
        manifest["subject"] = json!({ "mediaType": OCI_MANIFEST, "digest": subject, "size": 10 });
        let manifest = manifest.to_string();
        let own = digest(manifest.as_bytes());
        let put = registry.put_manifest("a", &own, OCI_MANIFEST, manifest.clone()).await.expect(201);
        assert_eq!(put.header("oci-subject"), subject);
        pushed.push(json!({
            "mediaType": OCI_MANIFEST, "digest": own, "size": manifest.len(),
            "artifactType": kind, "annotations": { "kind": kind },
        }));
    }
    let mut found = registry.get(&path).await.expect(200).json()["manifests"].as_array().expect("list").clone();
    found.sort_by_key(|descriptor| descriptor["artifactType"] == "application/x.sbom");
    assert_eq!(json!(found), json!(pushed));
    let filtered = registry.get(&format!("{path}?artifactType=application%2Fx.sbom")).await.expect(200);
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"], json!([pushed[1]]));
    let own = pushed[0]["digest"].as_str().expect("text");
    registry.delete(&format!("/v2/a/manifests/{own}")).await.expect(202);
    assert_eq!(registry.get(&path).await.expect(200).json()["manifests"], json!([pushed[1]]));
    registry.get("/v2/a/referrers/nonsense").await.refused(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn the_catalogue_lists_repositories() {
    let registry = TestRegistry::new().await;
    for name in ["b/two", "a", "a/nested/deep"] {
        registry.push_image(name, "v1", name).await;
    }
    // Without a manifest there is nothing to pull yet.
    registry.push_blob("c/blobs-only", b"x").await;
    let all = registry.get("/v2/_catalog").await.expect(200).json();
    assert_eq!(all, json!({ "repositories": ["a", "a/nested/deep", "b/two"] }));
    let page = registry.get("/v2/_catalog?n=1&last=a").await.expect(200);
    assert_eq!(page.json(), json!({ "repositories": ["a/nested/deep"] }));
    assert_eq!(page.header("link"), "</v2/_catalog?n=1&last=a/nested/deep>; rel=\"next\"");
}
