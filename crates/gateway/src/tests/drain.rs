//! A replica is let go when no request is in it, and not before.

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::reports::Api;
use super::*;

fn object(uid: &str) -> Value {
    json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Replica",
        "metadata": {"name": "r", "namespace": "demo", "uid": uid, "resourceVersion": "5",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["infra.evroclabs.net/node", "run.evroclabs.net/gateway"]},
        "spec": {"hostName": "h", "epoch": 1, "service": "a", "revision": "a-1", "repository": "demo/a", "digest": "sha256:1",
            "port": 8080, "memoryBytes": 1, "cpuMillis": 1}})
}

fn releasing(world: &World) -> Api {
    let (api, client) = Api::new();
    let pool = Arc::new(crate::connect::Pool::new(world.dial.clone()));
    tokio::spawn(crate::drain::release(client, world.table.clone(), pool));
    api
}

const PATH: &str = "/apis/infra.evroclabs.net/v1alpha1/namespaces/demo/replicas/r";

/// Answers a release; the finalizers that it leaves.
async fn release(api: &mut Api) -> Value {
    let read = api.next().await;
    assert_eq!(read.what, format!("GET {PATH}"));
    read.answer(200, object("uid-of-r"));
    let write = api.next().await;
    assert_eq!(write.what, format!("PATCH {PATH}"));
    assert_eq!(write.body["metadata"]["resourceVersion"], "5", "exactly the version that was read is written back");
    let left = write.body["metadata"]["finalizers"].clone();
    write.answer(200, object("uid-of-r"));
    left
}

#[test]
fn a_replica_is_held_until_its_last_answer_has_been_read() {
    time::run(async {
        let world = World::new();
        let (go, closed) = oneshot::channel::<()>();
        let closed = Arc::new(Mutex::new(Some(closed)));
        world.start(
            "r",
            http(move |_| {
                let closed = closed.lock().unwrap().take().unwrap();
                let end = futures::stream::once(async move {
                    closed.await.unwrap();
                    Ok(hyper::body::Frame::data(Bytes::from("end")))
                });
                std::future::ready(Response::new(BodyExt::boxed(http_body_util::StreamBody::new(end))))
            }),
        );
        let mut api = releasing(&world);
        let mut client = world.http1().await;
        let answer = client.send_request(get("/")).await.unwrap();
        world.table.set_replica(Replica { draining: true, ..replica("r") });
        api.quiet(Duration::from_secs(600)).await;
        let next = world.http1().await.send_request(get("/")).await;
        assert_eq!(next.unwrap().status(), 504, "a replica that leaves gets no new request");
        go.send(()).unwrap();
        assert_eq!(whole(answer).await.1, "end");
        assert_eq!(release(&mut api).await, json!(["infra.evroclabs.net/node"]));
        settled().await;
        assert!(world.table.uids().is_empty());
        api.quiet(Duration::from_secs(600)).await;
    });
}

#[test]
fn an_idle_replica_is_let_go_at_once_and_again_if_that_fails() {
    time::run(async {
        let world = World::new();
        let mut api = releasing(&world);
        world.table.set_replica(Replica { draining: true, ..replica("r") });
        drop(api.next().await);
        // And an API that hangs.
        let hangs = api.next().await;
        assert_eq!(release(&mut api).await, json!(["infra.evroclabs.net/node"]));
        drop(hangs);
    });
}

#[test]
fn the_next_replica_of_the_same_name_stays() {
    time::run(async {
        let world = World::new();
        let mut api = releasing(&world);
        world.table.set_replica(Replica { draining: true, ..replica("r") });
        let read = api.next().await;
        // The old one is deleted while it is released, and the next has come.
        world.table.set_replica(Replica { uid: "next".into(), ..replica("r") });
        read.answer(200, object("next"));
        settled().await;
        assert_eq!(world.table.uids(), ["next".to_owned()].into());
        api.quiet(Duration::from_secs(600)).await;
    });
}

#[test]
fn the_end_of_an_earlier_replicas_request_does_not_count_for_the_next() {
    time::run(async {
        let world = World::new();
        world.table.set_replica(replica("r"));
        let crate::table::Choice::Now(old) = world.table.choose(&key("a-1")) else { panic!("no lease") };
        world.table.set_replica(Replica { uid: "next".into(), ..replica("r") });
        let crate::table::Choice::Now(_new) = world.table.choose(&key("a-1")) else { panic!("no lease") };
        drop(old);
        world.table.set_replica(Replica { uid: "next".into(), draining: true, ..replica("r") });
        assert_eq!(world.table.drained(), []);
    });
}
