use axum::body::Body;
use axum::http::Method;
use evroc_registry::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use serde_json::json;

use crate::support::{TestRegistry, digest};

#[tokio::test]
async fn manifests_are_kept_byte_for_byte() {
    let registry = TestRegistry::new().await;
    // Unusual spacing and order must survive.
    let compact = registry.image("demo/hello", "1").await;
    let content = serde_json::to_string_pretty(&compact).expect("JSON").replace("  ", "\t ");
    let put = registry.put_manifest("demo/hello", "v1", OCI_MANIFEST, content.clone()).await.expect(201);
    let digest = digest(content.as_bytes());
    assert_eq!(put.header("docker-content-digest"), digest);
    assert_eq!(put.header("location"), "/v2/demo/hello/manifests/v1");
    for reference in ["v1", &digest] {
        let path = format!("/v2/demo/hello/manifests/{reference}");
        let get = registry.get(&path).await.expect(200);
        assert_eq!(get.body, content.as_bytes());
        assert_eq!(get.header("content-type"), OCI_MANIFEST);
        assert_eq!(get.header("docker-content-digest"), digest);
        let head = registry.head(&path).await.expect(200);
        assert_eq!(head.header("content-length"), content.len().to_string());
        assert_eq!(head.header("docker-content-digest"), digest);
        let etag = format!("\"{digest}\"");
        let cached = [("if-none-match", &etag[..])];
        registry.request(Method::GET, &path, &cached, Body::empty()).await.expect(304);
    }
    // The tag moves, the old manifest stays.
    let second = registry.push_image("demo/hello", "v1", "2").await;
    assert_eq!(registry.get("/v2/demo/hello/manifests/v1").await.expect(200).body, second);
    registry.get(&format!("/v2/demo/hello/manifests/{digest}")).await.expect(200);
    // After a restart too.
    let registry = registry.reopen().await;
    assert_eq!(registry.get("/v2/demo/hello/manifests/v1").await.expect(200).body, second);
}

#[tokio::test]
async fn docker_manifests_and_indexes() {
    let registry = TestRegistry::new().await;
    let mut image = registry.image("a", "1").await;
    image["mediaType"] = DOCKER_MANIFEST.into();
    image["layers"].as_array_mut().expect("layers").push(json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": digest(b"elsewhere"), "size": 9, "urls": ["https://example.com/layer"],
    }));
    let image = image.to_string();
    registry.put_manifest("a", &digest(image.as_bytes()), DOCKER_MANIFEST, image.clone()).await.expect(201);
    for media_type in [OCI_INDEX, DOCKER_LIST] {
        let index = |child: &str| {
            json!({
                "schemaVersion": 2, "mediaType": media_type,
                "manifests": [{ "mediaType": DOCKER_MANIFEST, "digest": child, "size": image.len() }],
            })
            .to_string()
        };
        let complete = index(&digest(image.as_bytes()));
        registry.put_manifest("a", "multi", media_type, complete.clone()).await.expect(201);
        let get = registry.get("/v2/a/manifests/multi").await.expect(200);
        assert_eq!((get.header("content-type"), &get.body[..]), (media_type, complete.as_bytes()));
        let incomplete = index(&digest(b"absent"));
        let answer = registry.put_manifest("a", "multi", media_type, incomplete).await;
        answer.refused(400, "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(answer.json()["errors"][0]["detail"]["digest"], digest(b"absent"));
    }
}

#[tokio::test]
async fn a_body_that_is_not_a_manifest_is_refused() {
    let registry = TestRegistry::new().await;
    let good = registry.image("a", "1").await;
    let put = |media_type: &'static str, content: String| registry.put_manifest("a", "v1", media_type, content);
    let refused = [
        (OCI_MANIFEST, "not json".to_owned(), "not valid"),
        (OCI_MANIFEST, "{}".to_owned(), "schemaVersion"),
        (OCI_MANIFEST, json!({ "schemaVersion": 1 }).to_string(), "schemaVersion"),
        (OCI_MANIFEST, json!({ "schemaVersion": 2 }).to_string(), "config"),
        (OCI_INDEX, json!({ "schemaVersion": 2 }).to_string(), "manifests"),
        (DOCKER_MANIFEST, good.to_string(), "mediaType"),
        ("application/json", json!({ "schemaVersion": 2 }).to_string(), "not supported"),
    ];
    for (media_type, content, word) in refused {
        let message = put(media_type, content).await.refused(400, "MANIFEST_INVALID");
        assert!(message.contains(word), "{message}");
    }
    // Blobs of another repository do not count.
    let elsewhere = registry.put_manifest("b", "v1", OCI_MANIFEST, good.to_string()).await;
    elsewhere.refused(400, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(elsewhere.json()["errors"].as_array().expect("errors").len(), 2);
    let wrong = registry.put_manifest("a", &digest(b"other"), OCI_MANIFEST, good.to_string()).await;
    wrong.refused(400, "DIGEST_INVALID");
    let bad_tag = registry.put_manifest("a", ".hidden", OCI_MANIFEST, good.to_string()).await;
    bad_tag.refused(400, "MANIFEST_INVALID");
    let large = format!("{}{}", good, " ".repeat(4 << 20));
    put(OCI_MANIFEST, large).await.refused(413, "MANIFEST_INVALID");
    let just = good.to_string();
    let just = format!("{just}{}", " ".repeat((4 << 20) - just.len()));
    put(OCI_MANIFEST, just).await.expect(201);
    registry.get("/v2/b/manifests/v1").await.refused(404, "NAME_UNKNOWN");
    registry.get("/v2/a/manifests/v2").await.refused(404, "MANIFEST_UNKNOWN");
    registry.get("/v2/a/manifests/.INVALID").await.refused(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn tags_and_manifests_are_deleted() {
    let registry = TestRegistry::new().await;
    let manifest = registry.push_image("a", "v1", "1").await;
    let content = String::from_utf8(manifest.clone()).expect("text");
    registry.put_manifest("a", "v2", OCI_MANIFEST, content.clone()).await.expect(201);
    registry.put_manifest("a", "v3", OCI_MANIFEST, content).await.expect(201);
    let path = format!("/v2/a/manifests/{}", digest(&manifest));
    registry.delete("/v2/a/manifests/v1").await.expect(202);
    registry.delete("/v2/a/manifests/v1").await.refused(404, "MANIFEST_UNKNOWN");
    registry.get(&path).await.expect(200);
    registry.delete(&path).await.expect(202);
    registry.get(&path).await.refused(404, "MANIFEST_UNKNOWN");
    registry.get("/v2/a/manifests/v2").await.refused(404, "MANIFEST_UNKNOWN");
    registry.delete(&path).await.refused(404, "MANIFEST_UNKNOWN");
    assert_eq!(registry.get("/v2/a/tags/list").await.expect(200).json()["tags"], json!([]));
}

#[tokio::test]
async fn damage_on_disk_is_reported() {
    let registry = TestRegistry::new().await;
    let manifest = registry.push_image("a", "v1", "1").await;
    let hex = digest(&manifest).replace("sha256:", "");
    let path = registry.folder.path().join("blobs/sha256").join(&hex[..2]).join(&hex);
    let mut content = std::fs::read(&path).expect("content");
    content[10] ^= 1;
    std::fs::write(&path, content).expect("written");
    let message = registry.get("/v2/a/manifests/v1").await.refused(500, "UNKNOWN");
    assert!(message.contains(&hex), "{message}");
    // Pushing it again heals it.
    registry.push_image("a", "v1", "1").await;
    registry.get("/v2/a/manifests/v1").await.expect(200);
}
