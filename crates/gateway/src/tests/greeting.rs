//! How connections begin, and how they end when the gateway stops.

use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::serve::{GREETING, HEADERS, LINGER, pass_through};

#[tokio::test]
async fn controls_names_pass_untouched_with_the_clients_certificate() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::with_control(listener.local_addr().unwrap());
    let (own, own_key) = certificate();
    let (theirs, their_key) = certificate();
    let mut trusted = RootCertStore::empty();
    trusted.add(theirs.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(trusted)).build().unwrap();
    let control = ServerConfig::builder().with_client_cert_verifier(verifier);
    let control = TlsAcceptor::from(Arc::new(control.with_single_cert(vec![own.clone()], own_key).unwrap()));
    let mut roots = RootCertStore::empty();
    roots.add(own).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots);
    let client = TlsConnector::from(Arc::new(client.with_client_auth_cert(vec![theirs.clone()], their_key).unwrap()));
    let (stream, served) = world.accept();
    let control = tokio::spawn(async move {
        let mut stream = control.accept(listener.accept().await.unwrap().0).await.unwrap();
        let seen = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        let mut sent = String::new();
        stream.read_to_string(&mut sent).await.unwrap();
        stream.write_all(b"heard").await.unwrap();
        stream.shutdown().await.unwrap();
        (seen, sent)
    });
    let mut stream = client.connect(ServerName::try_from("API.evroc.localhost").unwrap(), stream).await.unwrap();
    stream.write_all(b"said").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = String::new();
    stream.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "heard", "after the client's half was closed");
    assert_eq!(control.await.unwrap(), (theirs, "said".to_owned()));
    drop(stream);
    served.await.unwrap().unwrap();
}

#[test]
fn without_a_server_name_the_host_header_decides() {
    time::run(async {
        let world = World::new();
        world.start("r", http(async |_| Response::new(text("yes"))));
        let mut config = world.client_config("http/1.1");
        config.enable_sni = false;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::try_from(HOST).unwrap(), world.accept().0).await.unwrap();
        let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await, (200, "yes".into()));
    });
}

#[test]
fn connections_without_tls_are_closed_and_plain_http_gets_an_explanation() {
    time::run(async {
        let world = World::new();
        let received = async |sent: &[u8]| {
            let (mut stream, served) = world.accept();
            stream.write_all(sent).await.unwrap();
            let mut received = vec![];
            stream.read_to_end(&mut received).await.unwrap();
            served.await.unwrap().unwrap();
            received
        };
        assert!(received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with(b"HTTP/1.1 400 "));
        received(b"\x16\x03\x01\x00\x05garbage and more").await;
        received(&[0xff; 100]).await;
    });
}

#[test]
fn a_greeting_and_headers_have_their_time() {
    time::run(async {
        let world = World::new();
        for sent in [&b""[..], b"\x16\x03\x01"] {
            let (mut stream, served) = world.accept();
            let before = time::now();
            stream.write_all(sent).await.unwrap();
            assert_eq!(served.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!((time::now() - before).as_secs(), GREETING.as_secs());
        }
        for sent in [&b""[..], b"PRI * HTTP/2", b"GET / HTTP/1.1\r\nHost:"] {
            let mut stream = world.tls("http/1.1").await;
            let before = time::now();
            stream.write_all(sent).await.unwrap();
            let _ = stream.read_to_end(&mut vec![]).await;
            assert_eq!((time::now() - before).as_secs(), HEADERS.as_secs(), "{sent:?}");
        }
    });
}

#[test]
fn stopping_waits_for_requests_and_not_for_silent_connections() {
    time::run(async {
        let world = World::new();
        let (go, closed) = tokio::sync::oneshot::channel::<()>();
        let closed = Arc::new(Mutex::new(Some(closed)));
        world.start(
            "r",
            http(move |_| {
                let closed = closed.lock().unwrap().take().unwrap();
                async move {
                    closed.await.unwrap();
                    Response::new(text("at last"))
                }
            }),
        );
        let mut client = world.http1().await;
        let answer = tokio::spawn(client.send_request(get("/")));
        let _idle = world.http1().await;
        let (_silent, _) = world.accept();
        settled().await;
        world.stop.cancel();
        let World { graceful, gateway: _gateway, .. } = world;
        let before = time::now();
        let mut stopped = tokio::spawn(graceful.shutdown());
        time::timeout(Duration::from_secs(3), &mut stopped).await.unwrap_err();
        go.send(()).unwrap();
        assert_eq!(whole(answer.await.unwrap().unwrap()).await, (200, "at last".into()));
        stopped.await.unwrap();
        assert_eq!((time::now() - before).as_secs(), 3, "the silent one was not waited for");
    });
}

#[test]
fn an_http2_connection_is_closed_when_it_has_had_no_request_for_a_while() {
    time::run(async {
        let world = World::new();
        let busy = Duration::from_secs(600);
        world.start(
            "r",
            http(move |_| async move {
                time::pass(busy).await;
                Response::new(text("late"))
            }),
        );
        let stream = TokioIo::new(world.tls("h2").await);
        let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let ended = tokio::spawn(connection);
        let before = time::now();
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await, (200, "late".into()));
        assert_eq!(time::now() - before, busy, "a request under way keeps it open");
        ended.await.unwrap().unwrap();
        assert_eq!((time::now() - before).as_secs(), (busy + HEADERS).as_secs());
        drop(client);
    });
}

#[test]
fn a_client_that_never_closes_is_cut_off_after_control_has_closed() {
    time::run(async {
        let (mut client, ours) = tokio::io::duplex(1024);
        let (ours_to_control, mut control) = tokio::io::duplex(1024);
        let passed = tokio::spawn(pass_through(ours, ours_to_control));
        control.write_all(b"bye").await.unwrap();
        control.shutdown().await.unwrap();
        let before = time::now();
        let mut received = String::new();
        client.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "bye");
        passed.await.unwrap().unwrap();
        assert_eq!(time::now() - before, LINGER);
    });
}
