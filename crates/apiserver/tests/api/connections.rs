//! Connections: deadlines, places, and streams that end with a credential.

use std::time::Duration;

use bytes::Bytes;
use evroc_apiserver::{Identity, ServeOptions};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::network::NetworkServer;
use crate::support::{Client, DISKS, TestServer, disk};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(600);
const OPERATOR: Option<(&str, &[&str])> = Some(("admin", &["evroc:operators"]));

async fn network(options: ServeOptions) -> NetworkServer {
    NetworkServer::over_with(TestServer::with_demo().await.0, options).await
}

/// An HTTP/2 connection without requests; returns when the server has closed it.
async fn nothing_requested(network: &NetworkServer, caller: Option<(&str, &[&str])>) {
    let stream = network.tls(caller, "h2").await.unwrap();
    let (_sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let _ = connection.await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_those_with_a_stream_are_not() {
    let network = network(ServeOptions { idle_timeout: SHORT, unknown_timeout: LONG, ..ServeOptions::default() }).await;
    let stream = network.tls(OPERATOR, "h2").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let watch = http::Request::get(format!("https://localhost{DISKS}?watch=true")).body(Empty::<Bytes>::new()).unwrap();
    let mut events = sender.send_request(watch).await.unwrap().into_body();
    for _ in 0..3 {
        nothing_requested(&network, OPERATOR).await;
    }
    network.server.admin().create(DISKS, &disk("a", 1)).await;
    let event = events.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(event.starts_with(b"{\"type\":\"ADDED\""), "{event:?}");
}

#[tokio::test]
async fn connections_without_credentials_have_a_deadline() {
    let network = network(ServeOptions { idle_timeout: LONG, unknown_timeout: SHORT, ..ServeOptions::default() }).await;
    nothing_requested(&network, None).await;
}

#[tokio::test]
async fn connections_that_send_nothing_are_closed() {
    let network = network(ServeOptions { header_timeout: SHORT, ..ServeOptions::default() }).await;
    let mut stream = network.tls(OPERATOR, "h2").await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest.len(), 0);
}

#[tokio::test]
async fn heads_are_bounded() {
    let network = network(ServeOptions::default()).await;
    let mut stream = network.tls(None, "http/1.1").await.unwrap();
    let head = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(200_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 401"), "it was read to its end: {}", String::from_utf8_lossy(&answer));
}

/// Whether a caller is served.
async fn is_served(network: &NetworkServer, caller: Option<(&str, &[&str])>) -> bool {
    let Ok(stream) = network.tls(caller, "http/1.1").await else { return false };
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await else {
        return false;
    };
    tokio::spawn(connection);
    let request = http::Request::get("/version").header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
    sender.send_request(request).await.is_ok()
}

#[tokio::test]
async fn the_last_places_are_for_the_platform_and_its_operators() {
    let options = ServeOptions { max_connections: 2, reserved_connections: 1, ..ServeOptions::default() };
    let network = network(options).await;
    let _held = network.tls(Some(("eve", &[])), "h2").await.unwrap();
    assert!(!is_served(&network, Some(("eve", &[]))).await);
    // The place that was tried is given back when the server sees the end of that connection.
    while !is_served(&network, OPERATOR).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn watches_end_with_the_credential() {
    let (server, admin) = TestServer::with_demo().await;
    admin.create(DISKS, &disk("a", 1)).await;
    let mut identity = Identity::new("admin", ["evroc:operators"]);
    identity.expires = Some(Timestamp::now() + SignedDuration::from_secs(1));
    let client = Client(server.api.service_as(identity));
    let request = http::Request::get(format!("{DISKS}?watch=true&timeoutSeconds=86400"));
    let response = client.respond(request.body(http_body_util::Full::default()).unwrap()).await;
    let events = response.into_body().collect().await.unwrap().to_bytes();
    assert!(events.starts_with(b"{\"type\":\"ADDED\""), "it began: {events:?}");
}
