//! Traces that begin at a client and go on in a container.

use std::sync::atomic::{AtomicUsize, Ordering};

use evroc_metrics::spans::{self, Propagation};
use http::{HeaderMap, HeaderValue};

use super::*;

/// The value that the client of this test sends; requests of other tests have no such header.
const CLIENT: &str = "of-the-client";
/// The span of the gateway in its place.
const GATEWAY: &str = "of-the-gateway";

static ADOPTED: AtomicUsize = AtomicUsize::new(0);

fn named(headers: &HeaderMap) -> Option<&str> {
    headers.get("traceparent")?.to_str().ok()
}

#[test]
fn a_container_is_told_the_span_of_the_gateway() {
    spans::propagate(Propagation {
        adopt: |_, headers| {
            if named(headers) == Some(CLIENT) {
                ADOPTED.fetch_add(1, Ordering::Relaxed);
            }
        },
        write: |_, headers| {
            if named(headers) == Some(CLIENT) {
                headers.insert("traceparent", HeaderValue::from_static(GATEWAY));
            }
        },
    });
    time::run(async {
        let world = World::new();
        // The first answer is lost, so that the request is sent again.
        let (container, heads) = scripted(&["", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]);
        world.start("r", container);
        let mut request = get("/");
        request.headers_mut().insert("traceparent", HeaderValue::from_static(CLIENT));
        assert_eq!(world.ask(request).await, (200, "ok".into()));
        let heads = heads.lock().unwrap();
        assert_eq!(heads.len(), 2);
        for head in heads.iter() {
            assert!(head.contains(&format!("traceparent: {GATEWAY}\r\n")) && !head.contains(CLIENT), "{head}");
        }
        assert_eq!(ADOPTED.load(Ordering::Relaxed), 1, "one request, however often it is sent");
    });
}
