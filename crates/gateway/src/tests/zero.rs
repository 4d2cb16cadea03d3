//! Requests that wait for a replica, and which replica they get.

use super::*;
use crate::proxy::{MOST_WAITING, WAIT_FOR_REPLICA};

fn hello() -> Container {
    http(async |_| Response::new(text("hello")))
}

/// Answers with its name, once it is released.
fn named(name: &'static str, go: &tokio::sync::watch::Receiver<bool>) -> Container {
    let go = go.clone();
    http(move |_| {
        let mut go = go.clone();
        async move {
            go.wait_for(|go| *go).await.unwrap();
            Response::new(text(name))
        }
    })
}

#[test]
fn many_wait_and_all_are_answered() {
    time::run(async {
        let world = Arc::new(World::new());
        let sent: Vec<_> = (0..100)
            .map(|_| {
                let world = world.clone();
                tokio::spawn(async move { world.ask(get("/")).await })
            })
            .collect();
        time::pass(Duration::from_secs(30)).await;
        assert_eq!(world.requests(), (100, 0));
        world.place("r", hello());
        world.table.set_replica(Replica { ready: false, ..replica("r") });
        settled().await;
        assert_eq!(world.requests(), (100, 0), "a replica that is not ready gets none");
        world.table.set_replica(replica("r"));
        for answer in sent {
            assert_eq!(answer.await.unwrap(), (200, "hello".into()));
        }
        settled().await;
        assert_eq!(world.requests(), (0, 0));
    });
}

#[test]
fn a_full_queue_refuses_at_once_and_those_in_it_are_answered() {
    time::run(async {
        let world = Arc::new(World::new());
        let mut queue: Vec<_> = (1..MOST_WAITING).map(|_| world.table.ticket(&key("a-1"))).collect();
        let last = tokio::spawn({
            let world = world.clone();
            async move { world.ask(get("/")).await }
        });
        settled().await;
        assert_eq!(world.requests(), (MOST_WAITING, 0));
        let before = time::now();
        let mut client = world.http1().await;
        let refused = client.send_request(get("/")).await.unwrap();
        assert_eq!((refused.status().as_u16(), time::now() - before), (503, Duration::ZERO));
        assert_eq!(refused.headers()["retry-after"], "1");
        settled().await;
        assert_eq!(world.requests(), (MOST_WAITING, 0), "the refused one does not count");
        // A free place is taken by the next.
        queue.pop();
        let next = tokio::spawn({
            let world = world.clone();
            async move { world.ask(get("/")).await }
        });
        settled().await;
        assert_eq!(world.requests(), (MOST_WAITING, 0));
        world.start("r", hello());
        assert_eq!(last.await.unwrap(), (200, "hello".into()));
        assert_eq!(next.await.unwrap(), (200, "hello".into()));
        assert_eq!(world.ask(get("/")).await.0, 200, "a replica that is ready has no queue");
    });
}

#[test]
fn waiting_ends_with_a_sentence() {
    time::run(async {
        let world = World::new();
        let before = time::now();
        let (status, answer_text) = world.ask(get("/")).await;
        assert_eq!((status, (time::now() - before).as_secs()), (504, WAIT_FOR_REPLICA.as_secs()));
        assert!(answer_text.contains("no replica of revision a-1 became ready"), "{answer_text}");
        assert_eq!(world.requests(), (0, 0));
    });
}

#[test]
fn a_client_that_leaves_is_not_counted_any_more() {
    time::run(async {
        let world = World::new();
        for protocol in ["http/1.1", "h2"] {
            let request = Request::get(format!("https://{HOST}/")).header("host", HOST).body(text("")).unwrap();
            let (mut one, mut two) = (world.http1().await, world.http2().await);
            let asking = tokio::spawn(async move {
                if protocol == "h2" { two.send_request(request).await } else { one.send_request(request).await }
            });
            settled().await;
            assert_eq!(world.requests(), (1, 0), "{protocol}");
            asking.abort();
            settled().await;
            assert_eq!(world.requests(), (0, 0), "{protocol}");
        }
    });
}

#[test]
fn a_client_that_leaves_within_a_request_frees_its_replica() {
    time::run(async {
        let world = World::new();
        let (_go, wait) = tokio::sync::watch::channel(false);
        world.start("r", named("r", &wait));
        let mut client = world.http1().await;
        let asking = tokio::spawn(async move { client.send_request(get("/")).await });
        settled().await;
        assert_eq!(world.requests(), (0, 1));
        world.table.set_replica(Replica { draining: true, ..replica("r") });
        assert_eq!(world.table.drained(), []);
        asking.abort();
        settled().await;
        assert_eq!(world.requests(), (0, 0));
        assert_eq!(world.table.drained().len(), 1);
    });
}

#[test]
fn the_replica_with_the_fewest_requests_is_next() {
    time::run(async {
        let world = Arc::new(World::new());
        let (go, wait) = tokio::sync::watch::channel(false);
        for name in ["r1", "r2", "r3"] {
            world.start(name, named(name, &wait));
        }
        world.table.set_replica(Replica { revision: key("a-2"), ..replica("r3") });
        let mut sent = vec![];
        for _ in 0..10 {
            let world = world.clone();
            sent.push(tokio::spawn(async move { world.ask(get("/")).await.1 }));
            settled().await;
        }
        go.send(true).unwrap();
        let mut by: HashMap<String, usize> = HashMap::new();
        for answer in sent {
            *by.entry(answer.await.unwrap()).or_default() += 1;
        }
        assert_eq!(by, HashMap::from([("r1".into(), 5), ("r2".into(), 5)]), "and none to another revision's");
    });
}

#[test]
fn a_replica_that_refuses_is_passed_over_for_another() {
    time::run(async {
        let world = World::new();
        world.table.set_replica(replica("r1"));
        world.start("r2", hello());
        for _ in 0..20 {
            let before = time::now();
            assert_eq!(world.ask(post("/", "x")).await.0, 200);
            assert_eq!((time::now() - before).as_millis(), 0, "no request waits while another replica can answer");
        }
    });
}

/// The node restarts: no event announces when its replicas can be reached again.
#[test]
fn a_replica_that_cannot_be_reached_for_a_while_heals_by_itself() {
    time::run(async {
        let world = Arc::new(World::new());
        world.table.set_replica(replica("r"));
        let sent: Vec<_> = (0..50)
            .map(|_| {
                let world = world.clone();
                tokio::spawn(async move { world.ask(post("/", "x")).await.0 })
            })
            .collect();
        time::pass(Duration::from_secs(5)).await;
        assert_eq!(world.requests(), (50, 0));
        let tries = world.dialled() / 50;
        assert!((5..20).contains(&tries), "a failure of many is one, with pauses that grow: {tries} tries");
        world.place("r", hello());
        let before = time::now();
        for answer in sent {
            assert_eq!(answer.await.unwrap(), 200);
        }
        assert!((time::now() - before) < Duration::from_secs(1), "{:?}", (time::now() - before));
    });
}

#[test]
fn a_replica_that_is_reported_ready_again_is_tried_at_once() {
    time::run(async {
        let world = Arc::new(World::new());
        world.table.set_replica(replica("r"));
        let asking = tokio::spawn({
            let world = world.clone();
            async move { world.ask(get("/")).await.0 }
        });
        time::pass(Duration::from_secs(10)).await;
        world.place("r", hello());
        world.table.set_replica(Replica { ready: false, ..replica("r") });
        world.table.set_replica(replica("r"));
        let before = time::now();
        assert_eq!(asking.await.unwrap(), 200);
        assert_eq!((time::now() - before).as_millis(), 0);
    });
}

#[test]
fn a_host_that_never_answers_is_not_waited_for_for_ever() {
    time::run(async {
        struct Silent;
        #[async_trait]
        impl Dial for Silent {
            async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn Stream>> {
                std::future::pending().await
            }
        }
        let mut world = World::new();
        let (certificate, own_key) = certificate();
        let tls =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], own_key).unwrap();
        let gateway = Gateway::new(settings(([127, 0, 0, 1], 1).into()), tls, unused_api(), Arc::new(Silent));
        (world.table, world.certificate) = (gateway.table(), certificate);
        world.gateway = Arc::new(gateway);
        world.table.set_complete();
        world.table.set_route(HOST, Some(Route::To(key("a-1"))));
        world.table.set_replica(replica("r"));
        assert_eq!(world.ask(get("/")).await.0, 504);
    });
}

#[test]
fn a_gateway_that_has_just_started_does_not_answer_that_a_service_does_not_exist() {
    time::run(async {
        let mut world = World::new();
        let tls = ServerConfig::builder().with_no_client_auth();
        let (certificate, own_key) = certificate();
        let tls = tls.with_single_cert(vec![certificate.clone()], own_key).unwrap();
        let gateway = Gateway::new(settings(([127, 0, 0, 1], 1).into()), tls, unused_api(), world.dial.clone());
        (world.table, world.certificate) = (gateway.table(), certificate);
        world.gateway = Arc::new(gateway);
        let world = Arc::new(world);
        let ask = |host: &'static str| {
            let world = world.clone();
            let request = Request::get("/").header("host", host).body(text("")).unwrap();
            tokio::spawn(async move { world.ask(request).await.0 })
        };
        let (known, unknown) = (ask(HOST), ask("svc-x.evroc.localhost"));
        time::pass(Duration::from_secs(1)).await;
        world.start("r", hello());
        world.table.set_route(HOST, Some(Route::To(key("a-1"))));
        assert_eq!(known.await.unwrap(), 200);
        assert!(!unknown.is_finished());
        world.table.set_complete();
        assert_eq!(unknown.await.unwrap(), 404);
    });
}

#[test]
fn waiting_requests_follow_the_service_to_its_next_revision() {
    time::run(async {
        let world = Arc::new(World::new());
        let asking = tokio::spawn({
            let world = world.clone();
            async move { world.ask(get("/")).await }
        });
        settled().await;
        world.place("r", hello());
        world.table.set_replica(Replica { revision: key("a-2"), ..replica("r") });
        world.table.set_route(HOST, Some(Route::To(key("a-2"))));
        assert_eq!(asking.await.unwrap(), (200, "hello".into()));
        assert_eq!(world.requests(), (0, 0));
    });
}
