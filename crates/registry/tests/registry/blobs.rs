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

    assert_eq!(registry.registry.forget("a", "a").await.expect("removed"), 1);
    registry.get("/v2/a/app/manifests/v1").await.refused(404, "NAME_UNKNOWN");
    let rest = registry.registry.collect_garbage(Duration::ZERO).await.expect("collected");
    assert_eq!(rest.contents, 3);
}

#[tokio::test]
async fn after_deletions_a_registry_is_as_large_as_it_was() {
    use std::time::Duration;
    let registry = TestRegistry::new().await;
    let kept = registry.push_image("a/kept", "v1", "kept").await;
    let before = registry.files();
    for round in 0..3 {
        let manifest = registry.push_image("a/deep/down/app", "v1", &format!("round {round}")).await;
        registry.push_image("a/kept", "v2", &format!("also {round}")).await;
        let path = format!("/v2/a/deep/down/app/manifests/{}", digest(&manifest));
        registry.delete(&path).await.expect(202);
        let second = registry.get("/v2/a/kept/manifests/v2").await.expect(200).body;
        registry.delete(&format!("/v2/a/kept/manifests/{}", digest(&second))).await.expect(202);
        let report = registry.registry.collect_garbage(Duration::ZERO).await.expect("collected");
        assert_eq!((report.links, report.contents, report.repositories), (4, 6, 1));
        registry.get("/v2/a/deep/down/app/tags/list").await.refused(404, "NAME_UNKNOWN");
    }
    assert_eq!(registry.files(), before);
    assert_eq!(registry.get("/v2/a/kept/manifests/v1").await.expect(200).body, kept);
}

/// Manifests without a tag are kept: they are pulled by digest.
#[tokio::test]
async fn an_image_whose_tag_moved_on_is_kept() {
    use std::time::Duration;
    let registry = TestRegistry::new().await;
    let first = registry.push_image("a/app", "v1", "first").await;
    registry.push_image("a/app", "v1", "second").await;
    let report = registry.registry.collect_garbage(Duration::ZERO).await.expect("collected");
    assert_eq!((report.links, report.contents), (0, 0));
    let path = format!("/v2/a/app/manifests/{}", digest(&first));
    assert_eq!(registry.get(&path).await.expect(200).body, first);
}

/// An image that is pushed while garbage is collected without any grace is complete when its manifest was accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_collection_never_breaks_an_image_that_is_being_pushed() {
    use evroc_registry::OCI_MANIFEST;
    use std::time::Duration;
    let registry = std::sync::Arc::new(TestRegistry::new().await);
    let source = registry.push_blob("b/source", b"shared by all").await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let collector = tokio::spawn({
        let (registry, stop) = (registry.clone(), stop.clone());
        async move {
            let mut collections = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                registry.registry.collect_garbage(Duration::ZERO).await.expect("collected");
                collections += 1;
            }
            collections
        }
    });
    let mut complete = 0;
    for round in 0..60 {
        let repository = format!("a/app{round}");
        // The same content again and again, by upload and by mount: just when it is swept it is linked once more.
        let layer = registry.push_blob("b/source", b"shared by all").await;
        assert_eq!(layer, source);
        let path = format!("/v2/{repository}/blobs/uploads/?mount={layer}&from=b/source");
        let _mounted_or_not = registry.request(Method::POST, &path, &[], Body::empty()).await;
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": layer, "size": 13}, "layers": []});
        let answer = registry.put_manifest(&repository, "v1", OCI_MANIFEST, manifest.to_string()).await;
        if answer.status == 201 {
            complete += 1;
            registry.get(&format!("/v2/{repository}/manifests/v1")).await.expect(200);
            registry.get(&format!("/v2/{repository}/blobs/{layer}")).await.expect(200);
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let collections = collector.await.expect("collector");
    assert!(complete > 0 && collections > 0, "{complete} images, {collections} collections");
}
