use axum::body::Body;
use axum::http::Method;

use crate::support::{TestRegistry, digest};

#[tokio::test]
async fn a_blob_is_read_whole_and_in_part() {
    let registry = TestRegistry::new().await;
    let content: Vec<u8> = (0..1_000_000u32).map(|n| ((n * 31) >> 5) as u8).collect();
    let digest = registry.push_blob("demo/hello", &content).await;
    let path = format!("/v2/demo/hello/blobs/{digest}");

    let head = registry.head(&path).await.expect(200);
    assert_eq!(head.header("content-length"), "1000000");
    assert_eq!(head.header("docker-content-digest"), digest);
    let get = registry.get(&path).await.expect(200);
    assert_eq!(get.header("content-type"), "application/octet-stream");
    assert!(get.body == content);

    for (range, first, last) in
        [("bytes=0-99", 0, 99), ("bytes=999990-", 999_990, 999_999), ("bytes=-5", 999_995, 999_999)]
    {
        let part = registry.request(Method::GET, &path, &[("range", range)], Body::empty()).await.expect(206);
        assert_eq!(part.header("content-range"), format!("bytes {first}-{last}/1000000"));
        assert_eq!(part.header("content-length"), (last - first + 1).to_string());
        assert!(part.body == content[first..=last]);
    }
    let beyond = registry.request(Method::GET, &path, &[("range", "bytes=1000000-")], Body::empty()).await;
    beyond.refused(416, "SIZE_INVALID");
    assert_eq!(beyond.header("content-range"), "bytes */1000000");
}

#[tokio::test]
async fn blobs_of_other_repositories_do_not_exist() {
    let registry = TestRegistry::new().await;
    let digest = registry.push_blob("a/one", b"secret").await;
    registry.push_blob("b/two", b"other").await;
    for method in [Method::GET, Method::HEAD] {
        let path = format!("/v2/b/two/blobs/{digest}");
        let answer = registry.request(method, &path, &[], Body::empty()).await;
        assert_eq!(answer.status, 404);
    }
    registry.get(&format!("/v2/b/two/blobs/{digest}")).await.refused(404, "BLOB_UNKNOWN");
    registry.get(&format!("/v2/nobody/blobs/{digest}")).await.refused(404, "BLOB_UNKNOWN");
    registry.get("/v2/a/one/blobs/sha256:abc").await.refused(400, "DIGEST_INVALID");
    registry.delete(&format!("/v2/b/two/blobs/{digest}")).await.refused(404, "BLOB_UNKNOWN");

    // The same content pushed again is its own; deleting one leaves the other.
    registry.push_blob("b/two", b"secret").await;
    registry.delete(&format!("/v2/a/one/blobs/{digest}")).await.expect(202);
    registry.get(&format!("/v2/a/one/blobs/{digest}")).await.refused(404, "BLOB_UNKNOWN");
    assert_eq!(registry.get(&format!("/v2/b/two/blobs/{digest}")).await.expect(200).body, b"secret");
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let registry = TestRegistry::new().await;
    let digest = registry.push_blob("a/one", b"shared").await;
    let path = format!("/v2/b/two/blobs/uploads/?mount={digest}&from=a%2Fone");
    let mounted = registry.request(Method::POST, &path, &[], Body::empty()).await.expect(201);
    assert_eq!(mounted.header("location"), format!("/v2/b/two/blobs/{digest}"));
    assert_eq!(registry.get(&format!("/v2/b/two/blobs/{digest}")).await.expect(200).body, b"shared");

    // A blob that cannot be mounted becomes an upload.
    let absent = self::digest(b"absent");
    for path in [
        format!("/v2/b/two/blobs/uploads/?mount={absent}&from=a/one"),
        format!("/v2/b/two/blobs/uploads/?mount={digest}&from=nobody"),
        format!("/v2/b/two/blobs/uploads/?mount={digest}"),
    ] {
        registry.request(Method::POST, &path, &[], Body::empty()).await.expect(202);
    }
}

#[tokio::test]
async fn sha512_digests_are_accepted() {
    use evroc_registry::{Algorithm, Digest};
    let registry = TestRegistry::new().await;
    let digest = Digest::of(Algorithm::Sha512, b"content");
    let location = registry.begin("a").await;
    let path = format!("{location}?digest={digest}");
    registry.request(Method::PUT, &path, &[], "content").await.expect(201);
    assert_eq!(registry.get(&format!("/v2/a/blobs/{digest}")).await.expect(200).body, b"content");
}

#[tokio::test]
async fn blobs_without_a_manifest_are_garbage() {
    use std::time::Duration;
    let registry = TestRegistry::new().await;
    let manifest = registry.push_image("a/app", "v1", "kept").await;
    let stray = registry.push_blob("a/app", b"stray").await;
    let kept_elsewhere = registry.push_blob("b/app", b"stray").await;
    assert_eq!(stray, kept_elsewhere);

    let young = registry.registry.collect_garbage(Duration::from_secs(3600)).await.expect("collected");
    assert_eq!((young.links, young.contents), (0, 0));
    let all = registry.registry.collect_garbage(Duration::ZERO).await.expect("collected");
    assert_eq!((all.links, all.contents, all.bytes), (2, 1, 5));
    registry.get(&format!("/v2/a/app/blobs/{stray}")).await.refused(404, "BLOB_UNKNOWN");
    let parsed: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    for descriptor in [&parsed["config"], &parsed["layers"][0]] {
        let digest = descriptor["digest"].as_str().expect("text");
        registry.get(&format!("/v2/a/app/blobs/{digest}")).await.expect(200);
    }
    assert_eq!(registry.get("/v2/a/app/manifests/v1").await.expect(200).body, manifest);

    assert_eq!(registry.registry.delete_repositories("a/").await.expect("removed"), 1);
    registry.get("/v2/a/app/manifests/v1").await.refused(404, "NAME_UNKNOWN");
    let rest = registry.registry.collect_garbage(Duration::ZERO).await.expect("collected");
    assert_eq!(rest.contents, 3);
}
