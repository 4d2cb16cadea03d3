use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Method;

use crate::support::{TestRegistry, digest};

#[tokio::test]
async fn chunks_are_sent_in_order() {
    let registry = TestRegistry::new().await;
    let location = registry.begin("demo/hello").await;
    let chunk = |range: &'static str, content: &'static str| {
        let (registry, location) = (&registry, &location);
        async move { registry.request(Method::PATCH, location, &[("content-range", range)], content).await }
    };
    let first = chunk("0-4", "hello").await.expect(202);
    assert_eq!(first.header("range"), "0-4");
    assert_eq!(first.header("location"), location);
    for wrong in ["0-4", "4-8", "6-10"] {
        let answer = chunk(wrong, "wrong").await;
        answer.refused(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("range"), "0-4");
    }
    let status = registry.get(&location).await.expect(204);
    assert_eq!(status.header("range"), "0-4");
    chunk("5-6", ", ").await.expect(202);
    // Without a range the content goes to the end.
    registry.request(Method::PATCH, &location, &[], "wor").await.expect(202);
    let path = format!("{location}?digest={}", digest(b"hello, world"));
    registry.request(Method::PUT, &path, &[("content-range", "10-11")], "ld").await.expect(201);
    let blob = registry.get(&format!("/v2/demo/hello/blobs/{}", digest(b"hello, world"))).await;
    assert_eq!(blob.expect(200).body, b"hello, world");
    registry.get(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.unfinished(), 0);
}

#[tokio::test]
async fn the_whole_content_in_one_request() {
    let registry = TestRegistry::new().await;
    let path = format!("/v2/a/blobs/uploads/?digest={}", digest(b"content"));
    registry.request(Method::POST, &path, &[], "content").await.expect(201);
    registry.request(Method::POST, &path, &[], "other").await.refused(400, "DIGEST_INVALID");
    assert_eq!(registry.unfinished(), 0);
    assert_eq!(registry.get(&format!("/v2/a/blobs/{}", digest(b"content"))).await.expect(200).body, b"content");
}

#[tokio::test]
async fn another_digest_is_refused_and_nothing_stays() {
    let registry = TestRegistry::new().await;
    let location = registry.begin("a").await;
    let expected = digest(b"expected");
    let put = async |query: String| {
        let path = format!("{location}{query}");
        registry.request(Method::PUT, &path, &[], "found").await
    };
    put(String::new()).await.refused(400, "DIGEST_INVALID");
    put("?digest=sha256:abc".to_owned()).await.refused(400, "DIGEST_INVALID");
    let message = put(format!("?digest={expected}")).await.refused(400, "DIGEST_INVALID");
    assert!(message.contains(&expected) && message.contains(&digest(b"found")), "{message}");
    registry.get(&format!("/v2/a/blobs/{expected}")).await.refused(404, "BLOB_UNKNOWN");
    assert_eq!(registry.unfinished(), 0);
}

#[tokio::test]
async fn uploads_are_cancelled_and_belong_to_their_repository() {
    let registry = TestRegistry::new().await;
    let location = registry.begin("a").await;
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    registry.get(&elsewhere).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.delete(&elsewhere).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.get("/v2/a/blobs/uploads/..%2f..%2fformat").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.unfinished(), 1);
    registry.delete(&location).await.expect(204);
    registry.delete(&location).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(registry.unfinished(), 0);
}

/// The part that came before the connection broke can be continued.
#[tokio::test]
async fn an_interrupted_chunk_is_continued() {
    let registry = TestRegistry::new().await;
    let location = registry.begin("a").await;
    let pieces =
        futures::stream::iter([Ok(Bytes::from_static(b"first ")), Err(std::io::Error::other("connection reset"))]);
    let broken = registry.request(Method::PATCH, &location, &[], Body::from_stream(pieces)).await;
    broken.refused(400, "BLOB_UPLOAD_INVALID");
    let status = registry.get(&location).await.expect(204);
    assert_eq!(status.header("range"), "0-5");
    let path = format!("{location}?digest={}", digest(b"first second"));
    registry.request(Method::PUT, &path, &[("content-range", "6-11")], "second").await.expect(201);
}

/// Content goes to the disk as it comes: a body that does not end is not held in memory, and two at once are refused.
#[tokio::test]
async fn content_is_written_while_it_comes() {
    let registry = TestRegistry::new().await;
    let location = registry.begin("a").await;
    let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
    let body =
        futures::stream::unfold(
            receive,
            |mut receive| async move { receive.recv().await.map(|piece| (piece, receive)) },
        );
    let request = registry.request(Method::PATCH, &location, &[], Body::from_stream(body));
    let conversation = async {
        send.send(Ok(Bytes::from(vec![7; 3 << 20]))).expect("upload goes on");
        let written = async {
            while registry.get(&location).await.header("range") != "0-3145727" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written).await.expect("written in time");
        let second = registry.request(Method::PATCH, &location, &[], "x").await;
        second.refused(409, "BLOB_UPLOAD_INVALID");
        send.send(Ok(Bytes::from_static(b"end"))).expect("upload goes on");
        drop(send);
    };
    let (answer, ()) = tokio::join!(request, conversation);
    assert_eq!(answer.expect(202).header("range"), "0-3145730");
}

#[tokio::test]
async fn a_restart_forgets_unfinished_uploads() {
    let registry = TestRegistry::new().await;
    let kept = registry.push_blob("a", b"kept").await;
    let location = registry.begin("a").await;
    registry.request(Method::PATCH, &location, &[], "half").await.expect(202);
    assert_eq!(registry.unfinished(), 1);
    let registry = registry.reopen().await;
    assert_eq!(registry.unfinished(), 0);
    registry.request(Method::PATCH, &location, &[], "rest").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.get(&format!("/v2/a/blobs/{kept}")).await.expect(200);
}

/// Uploads that are begun and left cost no descriptors, and a tenant has a bounded number of them.
#[tokio::test]
async fn begun_uploads_hold_no_descriptor_and_are_bounded_by_tenant() {
    let registry = TestRegistry::new().await;
    let open = || {
        std::fs::read_dir("/proc/self/fd")
            .expect("list descriptors")
            .flatten()
            .filter(|entry| {
                std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(registry.folder.path()))
            })
            .count()
    };
    let mut locations = Vec::new();
    for _ in 0..64 {
        locations.push(registry.begin("one/image").await);
    }
    assert_eq!((registry.unfinished(), open()), (64, 0));
    let refused = registry.request(Method::POST, "/v2/one/other/blobs/uploads/", &[], "").await;
    let message = refused.refused(429, "TOOMANYREQUESTS");
    assert!(message.contains("one has 64 unfinished uploads"), "{message}");
    assert_eq!(registry.unfinished(), 64, "nothing is left of the refused one");
    // Another tenant is not affected, and one that is ended makes room.
    registry.begin("other/image").await;
    registry.delete(&locations[0]).await.expect(204);
    registry.begin("one/image").await;
    let path = format!("{}?digest={}", locations[1], digest(b"content"));
    registry.request(Method::PUT, &path, &[], "content").await.expect(201);
}
