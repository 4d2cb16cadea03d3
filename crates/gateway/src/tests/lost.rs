//! Connections that end at the wrong moment: nothing is sent twice that may not be.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::proxy::REPEATS;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_kept_connection_that_was_closed_is_not_used() {
    time::run(async {
        let world = World::new();
        // Keeps each connection open in word only.
        let (container, heads) = scripted(&[OK, OK, OK]);
        world.start("r", container);
        for n in 1..=3 {
            assert_eq!(world.ask(post("/", "")).await, (200, "ok".into()));
            assert_eq!((heads.lock().unwrap().len(), world.dialled()), (n, n));
        }
    });
}

#[test]
fn a_connection_that_closes_before_it_was_sent_on_is_followed_by_another() {
    time::run(async {
        let world = World::new();
        let (container, heads) = scripted(&[OK]);
        let accepted = AtomicUsize::new(0);
        world.start(
            "r",
            Arc::new(move |stream| {
                if accepted.fetch_add(1, Ordering::Relaxed) >= 2 {
                    container(stream);
                }
            }),
        );
        assert_eq!(world.ask(post("/", "body")).await, (200, "ok".into()));
        assert_eq!((heads.lock().unwrap().len(), world.dialled()), (1, 3));
    });
}

#[test]
fn a_lost_request_is_repeated_if_that_is_safe() {
    time::run(async {
        for (request, repeated) in [
            (get("/"), true),
            (Request::head("/").header("host", HOST).body(text("")).unwrap(), true),
            (Request::options("/").header("host", HOST).body(text("")).unwrap(), true),
            (Request::get("/").header("host", HOST).body(text("x")).unwrap(), false),
            (post("/", ""), false),
            (post("/", "x"), false),
            (Request::put("/").header("host", HOST).body(text("")).unwrap(), false),
            (Request::delete("/").header("host", HOST).body(text("")).unwrap(), false),
        ] {
            let world = World::new();
            let name = format!("{} {:?}", request.method(), request.body());
            let head = request.method() == http::Method::HEAD;
            let (container, heads) = scripted(&["", if head { "HTTP/1.1 200 OK\r\n\r\n" } else { OK }]);
            world.start("r", container);
            let (status, answer_text) = world.ask(request).await;
            assert_eq!(
                (status, heads.lock().unwrap().len()),
                if repeated { (200, 2) } else { (502, 1) },
                "{name}: {answer_text}"
            );
            settled().await;
            assert_eq!(world.requests(), (0, 0), "{name}");
        }
    });
}

#[test]
fn http2_requests_without_a_body_are_repeated_too() {
    time::run(async {
        let world = World::new();
        let (container, heads) = scripted(&["", OK]);
        world.start("r", container);
        let request = Request::get(format!("https://{HOST}/path")).body(text("")).unwrap();
        assert_eq!(whole(world.http2().await.send_request(request).await.unwrap()).await, (200, "ok".into()));
        let heads = heads.lock().unwrap();
        assert_eq!(heads.len(), 2);
        assert_eq!(heads[0], heads[1], "word for word");
    });
}

#[test]
fn a_request_that_ends_containers_does_not_end_many() {
    time::run(async {
        let world = World::new();
        let (container, heads) = scripted(&[]);
        for name in ["r1", "r2", "r3", "r4", "r5"] {
            world.start(name, container.clone());
        }
        let (status, answer_text) = world.ask(get("/")).await;
        assert_eq!((status, heads.lock().unwrap().len()), (502, REPEATS + 1));
        assert!(answer_text.contains("closed the connection without an answer"), "{answer_text}");
    });
}

/// The connection closes while the request is on its way: whether it was received cannot be known.
#[test]
fn a_kept_connection_that_closes_within_a_post_is_a_502() {
    time::run(async {
        let world = World::new();
        let received = Arc::new(AtomicUsize::new(0));
        let count = received.clone();
        world.start(
            "r",
            Arc::new(move |mut stream| {
                let count = count.clone();
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    assert!(stream.read(&mut bytes).await.unwrap() > 0);
                    count.fetch_add(1, Ordering::Relaxed);
                    stream.write_all(OK.as_bytes()).await.unwrap();
                    if stream.read(&mut bytes).await.unwrap() > 0 {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }),
        );
        let mut client = world.http1().await;
        assert_eq!(whole(client.send_request(post("/", "x")).await.unwrap()).await.0, 200);
        assert_eq!(whole(client.send_request(post("/", "x")).await.unwrap()).await.0, 502);
        assert_eq!((received.load(Ordering::Relaxed), world.dialled()), (2, 1));
        // A request that may be repeated is, on a connection of its own.
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        assert_eq!((received.load(Ordering::Relaxed), world.dialled()), (5, 3));
    });
}

#[tokio::test]
async fn a_restarted_node_is_dialled_on_a_new_connection() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dial.sock");
    let client = crate::dial::DialClient::new(&path);
    let dial = async || client.dial("r", 1).await.unwrap_err().to_string();
    assert!(dial().await.starts_with("request a connection from the node"));
    for life in ["first", "second"] {
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let node = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let mut line = vec![];
                while line.last() != Some(&b'\n') {
                    line.push(stream.read_u8().await.unwrap());
                }
                let answer = format!("{{\"ok\":false,\"reason\":\"refused\",\"message\":\"{life}\"}}\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        for _ in 0..2 {
            assert!(dial().await.ends_with(life));
        }
        node.await.unwrap();
    }
}
