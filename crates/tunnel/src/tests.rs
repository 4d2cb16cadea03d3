//! Both halves together.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::*;

/// A host with one machine: port 22 echoes, port 80 sends a text and closes, port 81 ends its direction first.
#[derive(Clone, Default)]
struct FakeHost {
    /// How many bytes its port 81 received.
    received: watch::Sender<u64>,
}

const LARGE: usize = 10 << 20;

#[async_trait]
impl TunnelHandler for FakeHost {
    async fn dial_machine(&self, uid: &str, port: u16) -> Result<BoxDuplex, Refusal> {
        if uid != "m1" {
            return Err(Refusal::new(StatusCode::NOT_FOUND, format!("machine {uid} is not on this host")));
        }
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let this = self.clone();
        tokio::spawn(async move {
            match port {
                22 => {
                    let (mut read, mut write) = tokio::io::split(theirs);
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.write_all(b"bye").await.unwrap();
                    write.shutdown().await.unwrap();
                }
                // Sends all it has and ends its direction, and only then reads; says how much came.
                81 => {
                    let (mut read, mut write) = tokio::io::split(theirs);
                    write.write_all(&vec![7; LARGE]).await.unwrap();
                    write.shutdown().await.unwrap();
                    let received = tokio::io::copy(&mut read, &mut tokio::io::sink()).await.unwrap();
                    this.received.send_replace(received);
                }
                _ => theirs.write_all(b"go away").await.unwrap(),
            }
        });
        Ok(Box::new(ours))
    }

    async fn console(&self, uid: &str) -> Result<BoxDuplex, Refusal> {
        self.dial_machine(uid, 22).await
    }

    async fn act(&self, uid: &str, action: MachineAction) -> Result<(), Refusal> {
        match action {
            MachineAction::Reset => Err(Refusal::new(StatusCode::CONFLICT, format!("machine {uid} does not run"))),
            _ => Ok(()),
        }
    }

    async fn service_log(&self, namespace: &str, service: &str, options: LogOptions) -> Result<HostLog, Refusal> {
        let written = format!("{namespace}/{service} {options:?}\n").into();
        let next = futures::stream::iter([Ok(Bytes::from("next\n"))]).chain(futures::stream::pending());
        Ok(HostLog { written, follow: options.follow.then(|| Box::pin(next) as BoxBytes) })
    }

    async fn serial_log(&self, _uid: &str, tail_bytes: u64) -> Result<BoxBytes, Refusal> {
        Ok(Box::pin(futures::stream::iter([Ok(Bytes::from(vec![b'x'; tail_bytes as usize]))])))
    }

    async fn previous_serial_log(&self, uid: &str, tail_bytes: u64) -> Result<BoxBytes, Refusal> {
        Ok(Box::pin(futures::stream::iter([Ok(Bytes::from(format!("{uid} {tail_bytes}")))])))
    }

    async fn metrics(&self) -> Result<Bytes, Refusal> {
        Ok("# EOF\n".into())
    }
}

/// A tunnel of host `h1` in memory; dropping the task ends it.
fn tunnel() -> (Tunnels, tokio::task::JoinSet<()>) {
    tunnel_of(FakeHost::default())
}

fn tunnel_of(host: FakeHost) -> (Tunnels, tokio::task::JoinSet<()>) {
    let tunnels = Tunnels::default();
    let mut tasks = tokio::task::JoinSet::new();
    let (node, control) = tokio::io::duplex(10_000);
    tasks.spawn(async move {
        let _ = serve_connection(TokioIo::new(node), Arc::new(host)).await;
    });
    let registry = tunnels.clone();
    tasks.spawn(async move {
        let _ = registry.serve("h1", TokioIo::new(control)).await;
    });
    (tunnels, tasks)
}

#[tokio::test]
async fn bytes_go_both_ways_and_ends_are_passed_on() {
    let (tunnels, _tasks) = tunnel();
    let mut stream = tunnels.dial_machine("h1", "m1", 22).await.unwrap();
    // An answer before the end of the question: it streams.
    stream.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"hello");
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");

    let mut stream = tunnels.dial_machine("h1", "m1", 80).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "go away", "the other side hangs up first");
    assert_eq!(tunnels.hosts(), ["h1"]);
}

#[tokio::test]
async fn an_action_is_done_or_refused() {
    let (tunnels, _tasks) = tunnel();
    for action in [MachineAction::Pause, MachineAction::Resume, MachineAction::ForceStop] {
        tunnels.act("h1", "m1", action).await.unwrap();
    }
    let error = tunnels.act("h1", "m1", MachineAction::Reset).await.unwrap_err();
    assert_eq!((error.status(), error.to_string().as_str()), (StatusCode::CONFLICT, "machine m1 does not run"));
    let error = tunnels.act("h1", "../m1", MachineAction::Pause).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::NOT_FOUND, "{error}");
}

#[tokio::test]
async fn directions_end_one_by_one() {
    let host = FakeHost::default();
    let mut received = host.received.subscribe();
    let (tunnels, _tasks) = tunnel_of(host);
    let (mut read, mut write) = tokio::io::split(tunnels.dial_machine("h1", "m1", 81).await.unwrap());
    let mut answer = Vec::new();
    read.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), LARGE, "what the guest sent before its end");
    write.write_all(&vec![8; LARGE]).await.unwrap();
    write.shutdown().await.unwrap();
    let arrived = received.wait_for(|count| *count > 0).await.unwrap();
    assert_eq!(*arrived, LARGE as u64, "what was sent to the guest after its end");
}

#[tokio::test]
async fn dropping_a_stream_ends_both_directions() {
    let host = FakeHost::default();
    let mut received = host.received.subscribe();
    let (tunnels, _tasks) = tunnel_of(host);
    let mut stream = tunnels.dial_machine("h1", "m1", 81).await.unwrap();
    let mut answer = vec![0; LARGE];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    stream.write_all(b"abc").await.unwrap();
    drop(stream);
    received.changed().await.unwrap();
}

#[tokio::test]
async fn a_large_transfer_is_complete_while_another_stream_is_stuck() {
    let (tunnels, _tasks) = tunnel();
    // A client that never reads must not hold up others.
    let mut stuck = tunnels.console("h1", "m1").await.unwrap();
    let flood = tokio::spawn(async move {
        let _ = stuck.write_all(&vec![0; 8 << 20]).await;
        stuck
    });
    let stream = tunnels.console("h1", "m1").await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..4_000_000_u32).map(|number| number as u8).collect();
    let sending = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, count) = tokio::join!(sending, read.read_to_end(&mut received));
    assert_eq!(count.unwrap(), sent.len() + 3);
    assert!(received[..sent.len()] == sent);
    flood.abort();
}

#[tokio::test]
async fn logs_and_refusals() {
    let (tunnels, _tasks) = tunnel();
    let since = Some("2026-01-02T03:04:05.000000006Z".parse().unwrap());
    let options = LogOptions { follow: false, tail_lines: Some(7), since, timestamps: true };
    let log = tunnels.service_log("h1", ("demo", "r1"), options).await.unwrap();
    let text = log.body.collect().await.unwrap().to_bytes();
    assert_eq!((text.len() as u64, text), (log.written, format!("demo/r1 {options:?}\n").into()));
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut following = tunnels.service_log("h1", ("demo", "r1"), options).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"next\n") {
        text.extend(following.body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(text[..following.written as usize], *format!("demo/r1 {options:?}\n").as_bytes());
    let bytes = tunnels.serial_log("h1", "m1", 5).await.unwrap().collect().await.unwrap().to_bytes();
    assert_eq!(bytes, "xxxxx");
    let bytes = tunnels.previous_serial_log("h1", "vm-1", 7).await.unwrap().collect().await.unwrap().to_bytes();
    assert_eq!(bytes, "vm-1 7");

    let error = tunnels.dial_machine("h1", "m2", 22).await.map(drop).unwrap_err();
    assert_eq!((error.status(), error.to_string().as_str()), (StatusCode::NOT_FOUND, "machine m2 is not on this host"));
    let error = tunnels.dial_machine("h1", "../x", 22).await.map(drop).unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{error}");
}

#[tokio::test]
async fn metrics_of_a_host_that_is_away_or_silent_delay_nobody() {
    let (tunnels, _tasks) = tunnel();
    while tunnels.hosts().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(tunnels.metrics("h1").await.unwrap(), "# EOF\n");
    // The default patience is 5 s.
    let away = tokio::time::timeout(Duration::from_secs(1), tunnels.metrics("h2")).await.expect("an answer at once");
    assert_eq!(away.unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
    // Accepts the tunnel and never answers.
    let (_silent, control) = tokio::io::duplex(10_000);
    let registry = tunnels.clone();
    let serving = tokio::spawn(async move { registry.serve("h3", TokioIo::new(control)).await });
    while !tunnels.hosts().contains(&"h3".to_owned()) {
        tokio::task::yield_now().await;
    }
    let begun = std::time::Instant::now();
    assert_eq!(tunnels.metrics("h3").await.unwrap_err().status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(begun.elapsed() < Duration::from_secs(5), "not the deadline of streams");
    serving.abort();
}

#[tokio::test]
async fn a_host_that_is_away_is_waited_for_a_little() {
    let tunnels = Tunnels::with_patience(Duration::from_millis(20));
    let error = tunnels.console("h1", "m1").await.map(drop).unwrap_err();
    assert_eq!(error.to_string(), "host h1 is not connected: is its node running?");
    assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE);
}

/// An API server that serves tunnels only; the number counts them.
async fn api(tunnels: Tunnels) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tunnels = tunnels.clone();
            connections.spawn(async move {
                let service = hyper::service::service_fn(|request: Request<Incoming>| {
                    let host = request.uri().path().split('/').nth(5).unwrap_or_default().to_owned();
                    let response = tunnels.accept(&host, request);
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_node_connects_and_connects_again() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tunnels = Tunnels::default();
    let (address, server) = api(tunnels.clone()).await;
    let tls = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let config = TunnelConfig {
        api: format!("http://{address}").parse().unwrap(),
        host: "h1".into(),
        kind: TunnelKind::Node,
        tls: tokio::sync::watch::channel(Arc::new(tls.with_no_client_auth())).1,
    };
    let node = tokio::spawn(keep_connected(config.clone(), Arc::new(FakeHost::default())));
    let mut stream = tunnels.console("h1", "m1").await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    // The node is replaced: a newer tunnel takes the place of the older.
    let second = tokio::spawn(keep_connected(config, Arc::new(FakeHost::default())));
    node.abort();
    let _ = node.await;
    let error = stream.read_u8().await.unwrap_err();
    assert!(!error.to_string().is_empty());
    let mut stream = tunnels.console("h1", "m1").await.unwrap();
    stream.write_all(b"y").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'y');
    assert_eq!(tunnels.hosts(), ["h1"]);
    second.abort();
    server.abort();
}

#[tokio::test]
async fn a_new_certificate_opens_a_new_tunnel_and_ends_no_stream() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tunnels = Tunnels::default();
    let (address, server) = api(tunnels.clone()).await;
    let identity = || {
        let tls = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
        Arc::new(tls.with_no_client_auth())
    };
    let (replace, tls) = tokio::sync::watch::channel(identity());
    let api = format!("http://{address}").parse().unwrap();
    let config = TunnelConfig { api, host: "h1".into(), kind: TunnelKind::Node, tls };
    let host = Arc::new(FakeHost::default());
    let node = tokio::spawn(keep_connected(config, host.clone()));
    let mut before = tunnels.console("h1", "m1").await.unwrap();
    let first = tunnels.generation("h1").unwrap();
    for round in 0..3u64 {
        replace.send_replace(identity());
        while tunnels.generation("h1") != Some(first + round + 1) {
            tokio::task::yield_now().await;
        }
        before.write_all(b"x").await.unwrap();
        assert_eq!(before.read_u8().await.unwrap(), b'x', "the open console goes on");
        let mut after = tunnels.console("h1", "m1").await.unwrap();
        after.write_all(b"y").await.unwrap();
        assert_eq!(after.read_u8().await.unwrap(), b'y');
    }
    // The first tunnel ends with its last stream, and the latest stays: held by this test, by the loop and by one tunnel.
    assert!(Arc::strong_count(&host) > 3);
    drop(before);
    while Arc::strong_count(&host) > 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tunnels.generation("h1"), Some(first + 3));
    node.abort();
    server.abort();
}
