//! Bodies and upgraded connections: passed on as they come, both ways.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use http::{StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::{mpsc, oneshot};

use super::*;

/// A body whose chunks are sent by hand.
fn by_hand() -> (mpsc::Sender<&'static str>, Body) {
    let (sender, receiver) = mpsc::channel::<&'static str>(1);
    let frames = futures::stream::unfold(receiver, |mut receiver| async {
        let chunk = receiver.recv().await?;
        Some((Ok(Frame::data(Bytes::from(chunk))), receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

/// A body of this many mebibytes, and how many of them were requested.
fn large(mebibytes: usize) -> (Arc<AtomicUsize>, Body) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let frames = futures::stream::iter(0..mebibytes * 64).map(move |_| {
        count.fetch_add(16 << 10, Ordering::Relaxed);
        Ok(Frame::data(Bytes::from_static(&[7; 16 << 10])))
    });
    (made, BodyExt::boxed(StreamBody::new(frames)))
}

/// Sends a request's body back while it comes.
fn echo() -> Container {
    http(|request: Request<Incoming>| async move {
        Response::new(request.into_body().map_err(|error| panic!("{error}")).boxed())
    })
}

async fn round_trip(
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    chunks: mpsc::Sender<&'static str>,
) {
    chunks.send("one").await.unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    chunks.send("two").await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two");
    drop(chunks);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
}

#[test]
fn sent_parts_arrive_before_the_rest_is_made() {
    time::run(async {
        let world = World::new();
        world.start("r", echo());
        let request = |uri: &str, body| Request::post(uri).header("host", HOST).body(body).unwrap();
        let (chunks, body) = by_hand();
        round_trip(world.http1().await.send_request(request("/", body)), chunks).await;
        let (chunks, body) = by_hand();
        round_trip(world.http2().await.send_request(request(&format!("https://{HOST}/"), body)), chunks).await;
    });
}

/// How much may be buffered by TLS, HTTP and connections.
const ON_ITS_WAY: usize = 3 << 20;

#[test]
fn a_large_upload_waits_for_a_slow_container() {
    time::run(async {
        for protocol in ["http/1.1", "h2"] {
            let world = World::new();
            let (go, gone) = oneshot::channel::<()>();
            let gone = Arc::new(Mutex::new(Some(gone)));
            world.start(
                "r",
                http(move |request: Request<Incoming>| {
                    let gone = gone.lock().unwrap().take().unwrap();
                    async move {
                        gone.await.unwrap();
                        let mut body = request.into_body();
                        let mut received = 0;
                        while let Some(frame) = body.frame().await {
                            received += frame.unwrap().into_data().unwrap().len();
                        }
                        Response::new(text(received.to_string()))
                    }
                }),
            );
            let (made, body) = large(24);
            let uri = if protocol == "h2" { format!("https://{HOST}/") } else { "/".into() };
            let request = Request::post(uri).header("host", HOST).body(body).unwrap();
            let (mut one, mut two) = (world.http1().await, world.http2().await);
            let answer = async move {
                if protocol == "h2" { two.send_request(request).await } else { one.send_request(request).await }
            };
            let answer = tokio::spawn(answer);
            settled().await;
            let early = made.load(Ordering::Relaxed);
            assert!(
                (1..ON_ITS_WAY).contains(&early),
                "{protocol}: {early} bytes were taken though no client read them"
            );
            go.send(()).unwrap();
            assert_eq!(whole(answer.await.unwrap().unwrap()).await.1, (24 << 20).to_string());
        }
    });
}

#[test]
fn a_large_download_waits_for_a_slow_client() {
    time::run(async {
        let world = World::new();
        let (made, body) = large(24);
        let body = Arc::new(Mutex::new(Some(body)));
        world.start("r", http(move |_| std::future::ready(Response::new(body.lock().unwrap().take().unwrap()))));
        let mut client = world.http1().await;
        let answer = client.send_request(get("/")).await.unwrap();
        settled().await;
        let early = made.load(Ordering::Relaxed);
        assert!((1..ON_ITS_WAY).contains(&early), "{early} bytes were made though no client read them");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 24 << 20);
    });
}

/// Upgrades on request, echoes, and sends a farewell at the end.
fn upgrading() -> Container {
    http(|mut request: Request<Incoming>| async move {
        assert_eq!(request.headers()[header::CONNECTION], "upgrade");
        let kind = request.headers()[header::UPGRADE].clone();
        tokio::spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
            let mut bytes = [0; 64];
            loop {
                match stream.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => stream.write_all(&bytes[..count]).await.unwrap(),
                }
            }
            let _ = stream.write_all(b"bye").await;
            let _ = stream.shutdown().await;
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response.header("connection", "Upgrade").header("upgrade", kind).body(text("")).unwrap()
    })
}

fn upgrade() -> Request<Body> {
    let mut request = get("/socket");
    request.headers_mut().insert("connection", "keep-alive, Upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    request
}

#[test]
fn an_upgraded_connection_passes_both_ways_and_counts_to_its_end() {
    time::run(async {
        let world = World::new();
        world.start("r", upgrading());
        let answer = world.http1().await.send_request(upgrade()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(answer.headers()["upgrade"], "websocket");
        let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        for words in ["hello", "again"] {
            socket.write_all(words.as_bytes()).await.unwrap();
            let mut back = [0; 5];
            socket.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, words.as_bytes());
        }
        world.table.set_replica(Replica { draining: true, ..replica("r") });
        settled().await;
        assert_eq!(world.requests(), (0, 1));
        assert_eq!(world.table.drained(), []);
        // One half is closed first: the container's response to that still arrives.
        socket.shutdown().await.unwrap();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "bye");
        settled().await;
        assert_eq!(world.requests(), (0, 0));
        assert_eq!(world.table.drained().len(), 1);
    });
}

#[test]
fn a_container_may_decline_to_upgrade() {
    time::run(async {
        let world = World::new();
        world.start("r", http(async |_| Response::builder().status(426).body(text("no")).unwrap()));
        assert_eq!(world.ask(upgrade()).await, (426, "no".into()));
        settled().await;
        assert_eq!(world.requests(), (0, 0));
    });
}
