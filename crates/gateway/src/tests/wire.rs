//! Requests and responses between client and container, header by header.

use http::{StatusCode, Version};
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::*;
use crate::connect::KEPT_FOR;

/// Answers with the request that the container saw: version, URI, then the headers in order.
fn mirror() -> Container {
    http(|request: Request<Incoming>| async move {
        let mut seen = format!("{:?} {} {}\n", request.version(), request.method(), request.uri());
        for (name, value) in request.headers() {
            seen += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        Response::new(text(seen))
    })
}

#[test]
fn connections_are_kept_on_both_sides_and_closed_when_idle() {
    time::run(async {
        let world = World::new();
        world.start("r", mirror());
        let mut client = world.http1().await;
        for _ in 0..3 {
            assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        }
        assert_eq!(world.dialled(), 1);
        time::pass(KEPT_FOR * 2).await;
        assert_eq!(whole(client.send_request(get("/")).await.unwrap()).await.0, 200);
        assert_eq!(world.dialled(), 2);
    });
}

#[test]
fn an_idle_connection_to_a_container_is_closed_though_no_request_comes() {
    time::run(async {
        let world = World::new();
        let (ended, mut end) = tokio::sync::mpsc::unbounded_channel();
        world.start(
            "r",
            Arc::new(move |mut stream| {
                let ended = ended.clone();
                tokio::spawn(async move {
                    stream.read_u8().await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    stream.read_to_end(&mut vec![]).await.unwrap();
                    ended.send(()).unwrap();
                });
            }),
        );
        let before = time::now();
        assert_eq!(world.ask(get("/")).await.0, 200);
        assert!(end.try_recv().is_err());
        end.recv().await.unwrap();
        let kept = time::now() - before;
        assert!(kept >= KEPT_FOR && kept <= KEPT_FOR * 2, "{kept:?}");
    });
}

#[test]
fn hop_by_hop_headers_stay_and_the_rest_passes() {
    time::run(async {
        let world = World::new();
        world.start("r", mirror());
        let request = Request::get("/a%20b?c=d")
            .header("host", format!("{HOST}:8443"))
            .header("connection", "close, x-mine, host")
            .header("x-mine", "1")
            .header("keep-alive", "timeout=5")
            .header("te", "gzip")
            .header("proxy-authorization", "Basic eA==")
            .header("upgrade", "h2c")
            .header("x-forwarded-for", "198.51.100.1")
            .header("x-forwarded-for", "198.51.100.2")
            .header("x-forwarded-proto", "http")
            .header("x-forwarded-host", "liar")
            .header("authorization", "Bearer x")
            .body(text(""))
            .unwrap();
        let (_, seen) = world.ask(request).await;
        let mut lines: Vec<&str> = seen.lines().skip(1).collect();
        lines.sort_unstable();
        assert_eq!(seen.lines().next(), Some("HTTP/1.1 GET /a%20b?c=d"));
        assert_eq!(
            lines,
            [
                "authorization: Bearer x",
                "host: svc-a.evroc.localhost:8443",
                "x-forwarded-for: 198.51.100.1, 198.51.100.2, 192.0.2.7",
                "x-forwarded-host: svc-a.evroc.localhost:8443",
                "x-forwarded-proto: https",
            ]
        );
    });
}

#[test]
fn responses_lose_the_headers_of_the_containers_connection() {
    time::run(async {
        let world = World::new();
        let (container, _) = scripted(&[
            "HTTP/1.1 200 OK\r\nConnection: close, X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nhi",
        ]);
        world.start("r", container);
        let response = world.http1().await.send_request(get("/")).await.unwrap();
        let mut names: Vec<&str> = response.headers().keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "date", "x-kept"]);
        assert_eq!(whole(response).await.1, "hi");
    });
}

#[test]
fn a_client_of_http2_is_answered_by_a_container_of_http1() {
    time::run(async {
        let world = World::new();
        world.start("r", mirror());
        let mut client = world.http2().await;
        let request = |path: &str| {
            let uri = format!("https://{HOST}{path}");
            let request = Request::get(uri).version(Version::HTTP_2).header("cookie", "a=1").header("cookie", "b=2");
            request.header("host", "liar").body(text("")).unwrap()
        };
        let answers = futures::future::join_all((0..5).map(|n| client.send_request(request(&format!("/{n}"))))).await;
        for (n, answer) in answers.into_iter().enumerate() {
            let (status, seen) = whole(answer.unwrap()).await;
            assert_eq!((status, seen.lines().next()), (200, Some(&*format!("HTTP/1.1 GET /{n}"))));
            assert!(seen.contains("cookie: a=1; b=2\n"), "{seen}");
            assert!(seen.contains(&format!("\nhost: {HOST}\n")), "the host that it was routed by: {seen}");
        }
    });
}

#[test]
fn grpc_is_http2_to_the_container_with_trailers_back() {
    time::run(async {
        let world = World::new();
        world.start(
            "r",
            http(|request: Request<Incoming>| async move {
                let seen = format!("{:?} {} {:?}", request.version(), request.uri(), request.headers().get("te"));
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                trailers.insert("seen", seen.parse().unwrap());
                let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
                Response::new(StreamBody::new(futures::stream::iter(frames)).boxed())
            }),
        );
        let mut client = world.http2().await;
        for _ in 0..3 {
            let request = Request::post(format!("https://{HOST}/pkg.Service/Method")).version(Version::HTTP_2);
            let request = request.header("content-type", "application/grpc+proto").header("te", "trailers");
            let answer = client.send_request(request.body(text("question")).unwrap()).await.unwrap();
            let whole = answer.into_body().collect().await.unwrap();
            let trailers = whole.trailers().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(trailers["seen"], format!("HTTP/2.0 http://{HOST}/pkg.Service/Method Some(\"trailers\")"));
            assert_eq!(whole.to_bytes(), "question");
        }
        assert_eq!(world.dialled(), 1, "one connection carries them all");
    });
}

#[test]
fn trailers_of_http1_pass() {
    time::run(async {
        let world = World::new();
        let answer =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n";
        world.start("r", scripted(&[answer]).0);
        let mut request = get("/");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let answer = world.http1().await.send_request(request).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().trailers().unwrap()["x-sum"], "7");
    });
}

#[test]
fn a_container_of_http_1_0_does_not_cost_the_client_its_connection() {
    time::run(async {
        let world = World::new();
        world.start("r", scripted(&["HTTP/1.0 200 OK\r\n\r\none", "HTTP/1.0 200 OK\r\n\r\ntwo"]).0);
        let mut client = world.http1().await;
        for want in ["one", "two"] {
            let answer = client.send_request(get("/")).await.unwrap();
            assert_eq!(answer.version(), Version::HTTP_11);
            assert_eq!(whole(answer).await, (200, want.to_owned()));
        }
    });
}

#[test]
fn an_answer_that_is_cut_off_is_cut_off_for_the_client_too() {
    time::run(async {
        let world = World::new();
        world.start("r", scripted(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"]).0);
        let answer = world.http1().await.send_request(get("/")).await.unwrap();
        assert!(answer.into_body().collect().await.is_err());
        settled().await;
        assert_eq!(world.requests(), (0, 0));
    });
}

#[test]
fn a_request_without_a_target_gets_a_sentence() {
    time::run(async {
        let world = World::new();
        world.table.set_route("svc-b.evroc.localhost", Some(Route::NotReady("RunsAsRoot: no".into())));
        let cases = [
            ("svc-x.evroc.localhost", StatusCode::NOT_FOUND, "no service at svc-x.evroc.localhost"),
            ("SVC-B.evroc.localhost.:8443", StatusCode::SERVICE_UNAVAILABLE, "not ready yet: RunsAsRoot: no"),
            ("api.evroc.localhost", StatusCode::MISDIRECTED_REQUEST, "connect again"),
            ("Registry.evroc.localhost:8443", StatusCode::MISDIRECTED_REQUEST, "connect again"),
        ];
        for (host, status, words) in cases {
            let request = Request::get("/").header("host", host).body(text("")).unwrap();
            let (found, answer_text) = world.ask(request).await;
            assert_eq!(found, status, "{host}");
            assert!(answer_text.contains(words), "{host}: {answer_text}");
        }
        let without = Request::get("/").body(text("")).unwrap();
        assert_eq!(world.ask(without).await.0, 400);
        let mut tunnel = get(&format!("{HOST}:443"));
        *tunnel.method_mut() = http::Method::CONNECT;
        assert_eq!(world.ask(tunnel).await.0, 405);
        assert_eq!(world.dialled(), 0);
    });
}
