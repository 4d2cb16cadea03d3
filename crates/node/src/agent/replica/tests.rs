use std::collections::HashSet;
use std::io;

use evroc_api::GATEWAY_FINALIZER;
use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::ReplicaPhase;
use http::{Method, Request as HttpRequest, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::turn::image_of;
use super::*;
use crate::container::memory::MemoryContainers;
use crate::shim::Exit;

const UID: &str = "11111111-1111-4111-8111-111111111111";
const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn object() -> Value {
    json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Replica",
        "metadata": {"name": "hello-1", "namespace": "demo", "uid": UID, "resourceVersion": "1",
            "finalizers": [NODE_FINALIZER, GATEWAY_FINALIZER]},
        "spec": {"hostName": "h", "epoch": 1, "service": "hello", "revision": "hello-00001", "repository": "demo/hello",
            "digest": DIGEST, "port": 8080, "memoryBytes": 1 << 28, "cpuMillis": 100}})
}

/// An API with one replica, and the agent over containers in memory.
struct World {
    object: Arc<Mutex<Option<Value>>>,
    containers: MemoryContainers,
    replicas: Arc<Replicas>,
    changed: Changed,
}

fn answer(object: &mut Option<Value>, method: &Method, path: &str, body: &Value) -> (u16, Value) {
    let failed = |code: u16, reason: &str| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": code});
        (code, status)
    };
    if path.ends_with("/events") {
        return (201, body.clone());
    }
    if !path.contains("/replicas") {
        return failed(404, "NotFound");
    }
    if path.ends_with("/replicas") {
        let list = json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "ReplicaList", "metadata": {},
            "items": object.iter().collect::<Vec<_>>()});
        return (200, list);
    }
    let Some(replica) = object else { return failed(404, "NotFound") };
    if *method == Method::GET {
        return (200, replica.clone());
    }
    if body["metadata"]["resourceVersion"] != replica["metadata"]["resourceVersion"] {
        return failed(409, "Conflict");
    }
    match *method {
        Method::PUT => replica["status"] = body["status"].clone(),
        _ => replica["metadata"]["finalizers"] = body["metadata"]["finalizers"].clone(),
    }
    let version: u64 = replica["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    replica["metadata"]["resourceVersion"] = (version + 1).to_string().into();
    let written = replica.clone();
    let is_free = written["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
    if is_free && written["metadata"]["deletionTimestamp"].is_string() {
        *object = None;
    }
    (200, written)
}

impl World {
    fn new() -> Self {
        let object = Arc::new(Mutex::new(Some(object())));
        let shared = object.clone();
        let service = tower::service_fn(move |request: HttpRequest<kube::client::Body>| {
            let shared = shared.clone();
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let body = request.into_body().collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (status, body) = answer(&mut locked(&shared), &method, &path, &body);
                let body = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
                Ok::<_, io::Error>(Response::builder().status(status).body(body).unwrap())
            }
        });
        let context = Context::new(kube::Client::new(service, "default"));
        let containers = MemoryContainers::default();
        let logs = ServiceLogs::new("/nonexistent".into());
        let shared = Arc::new(containers.clone());
        let (replicas, changed) = Replicas::new(context, "h".into(), shared, logs, DrainFlag::default());
        Self { object, containers, replicas, changed }
    }

    fn replica(&self) -> Option<Replica> {
        locked(&self.object).clone().map(|value| serde_json::from_value(value).unwrap())
    }

    fn phase(&self) -> Option<ReplicaPhase> {
        self.replica()?.status?.phase
    }

    fn condition(&self, kind: &str) -> Option<String> {
        let status = self.replica()?.status?;
        conditions::get(&status.conditions, kind).map(|condition| condition.status.clone())
    }

    fn delete(&self) {
        let now = Timestamp::now().to_string();
        locked(&self.object).as_mut().unwrap()["metadata"]["deletionTimestamp"] = now.into();
    }

    fn release_by_gateway(&self) {
        locked(&self.object).as_mut().unwrap()["metadata"]["finalizers"] = json!([NODE_FINALIZER]);
    }

    async fn reconcile(&self) -> Option<Action> {
        Some(reconcile(Arc::new(self.replica()?), self.replicas.clone()).await.unwrap())
    }

    /// Reconciles as the controller would, until `is_so`.
    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < limit, "never happened: {what}; {:?}", self.replica());
            self.reconcile().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn running() -> Self {
        let world = Self::new();
        world.until("it runs", |world| world.phase() == Some(ReplicaPhase::Running)).await;
        world
    }

    /// Lets the container be unseen for so long already.
    fn unseen_for(&self, time: Duration) {
        locked(&self.replicas.unseen).insert(UID.into(), Instant::now().checked_sub(time).unwrap());
    }
}

#[tokio::test]
async fn a_container_that_cannot_be_observed_lives_on_and_is_routed_to() {
    let world = World::running().await;
    for fault in ["Input/output error", "Too many open files", "the shim lives but does not answer"] {
        world.containers.set(|faults| faults.look = Some(fault.into()));
        assert_eq!(world.reconcile().await, Some(Action::requeue(LOOK_AGAIN)));
        assert_eq!(world.phase(), Some(ReplicaPhase::Running), "one failure is not worth a write");
        world.unseen_for(Duration::from_secs(30));
        for _ in 0..3 {
            assert_eq!(world.reconcile().await, Some(Action::requeue(LOOK_AGAIN)));
        }
        assert_eq!(world.phase(), Some(ReplicaPhase::Unknown));
        assert_eq!(world.condition(READY).as_deref(), Some("True"), "the gateway goes on sending requests to it");
        assert_eq!(world.condition(OBSERVED).as_deref(), Some("Unknown"));
        assert_eq!((world.containers.running(), world.containers.starts().len()), (vec![UID.to_owned()], 1));

        world.containers.set(|faults| faults.look = None);
        world.until("it is observed again", |world| world.phase() == Some(ReplicaPhase::Running)).await;
        assert_eq!(world.condition(OBSERVED).as_deref(), Some("True"));
        assert_eq!((world.containers.starts().len(), world.containers.stops()), (1, 0));
    }
    // It is still watched: its end is seen.
    world.containers.exit(UID, 7);
    world.until("its end is seen", |world| world.phase() == Some(ReplicaPhase::Failed)).await;
}

#[tokio::test]
async fn a_container_that_cannot_be_observed_is_drained_before_its_end() {
    let world = World::running().await;
    world.containers.set(|faults| faults.look = Some("Input/output error".into()));
    world.delete();
    let action = world.reconcile().await.unwrap();
    assert_ne!(action, Action::await_change(), "the gateway gets its time");
    assert_eq!(world.containers.running(), [UID]);
    world.release_by_gateway();
    world.until("it is removed", |world| world.replica().is_none()).await;
    assert!(world.containers.running().is_empty());
}

#[tokio::test]
async fn a_replica_is_drained_whatever_the_clock_of_the_api_server_shows() {
    let world = World::running().await;
    for hours in [-1, 1] {
        let then = Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        locked(&world.object).as_mut().unwrap()["metadata"]["deletionTimestamp"] = then.to_string().into();
        assert_ne!(world.reconcile().await, Some(Action::await_change()), "the gateway gets its time");
        tokio::task::yield_now().await;
        assert_eq!(world.containers.running(), [UID]);
    }
    // By the agent's own clock it is over.
    locked(&world.replicas.deleted).insert(UID.into(), Instant::now().checked_sub(Duration::from_secs(31)).unwrap());
    world.until("it is removed", |world| world.replica().is_none()).await;
    assert!(locked(&world.replicas.deleted).is_empty());
}

#[tokio::test]
async fn the_end_of_a_container_wakes_its_own_replica_only() {
    let mut world = World::running().await;
    world.until("it is watched", |world| !locked(&world.replicas.watched).is_empty()).await;
    world.containers.exit(UID, 7);
    let woken = world.changed.0.recv().await.unwrap();
    assert_eq!((woken.namespace.as_deref(), woken.name.as_str()), (Some("demo"), "hello-1"));
    assert!(world.changed.0.try_recv().is_err());
}

#[tokio::test]
async fn a_delete_is_seen_while_an_image_is_fetched() {
    let world = World::new();
    world.containers.set(|faults| faults.pull_hangs = true);
    world.until("it is starting", |world| world.phase() == Some(ReplicaPhase::Starting)).await;
    world.delete();
    world.until("it is removed", |world| world.replica().is_none()).await;
    world.containers.set(|faults| faults.pull_hangs = false);
    tokio::task::yield_now().await;
    assert!(world.containers.starts().is_empty());
    world.until("its owner goes with it", |world| world.replicas.owners.is_empty()).await;
}

#[tokio::test]
async fn a_delete_is_seen_while_a_port_is_waited_for() {
    let world = World::new();
    world.containers.set(|faults| faults.never_ready = true);
    world.until("it is starting", |world| world.phase() == Some(ReplicaPhase::Starting)).await;
    world.delete();
    world.until("it is removed", |world| world.replica().is_none()).await;
    assert!(world.containers.running().is_empty());
}

#[tokio::test]
async fn a_container_whose_end_was_not_recorded_is_started_again() {
    let world = World::running().await;
    world.containers.lose(UID);
    world.until("it is started again", |world| world.containers.starts().len() == 2).await;
    world.until("it runs", |world| world.phase() == Some(ReplicaPhase::Running)).await;
}

#[tokio::test]
async fn nothing_starts_once_the_host_is_being_stopped() {
    let world = World::new();
    world.containers.set(|faults| faults.pull_hangs = true);
    world.until("it is starting", |world| world.phase() == Some(ReplicaPhase::Starting)).await;
    world.replicas.draining.set();
    world.replicas.stop_all().await;
    world.containers.set(|faults| faults.pull_hangs = false);
    for _ in 0..10 {
        world.reconcile().await;
        tokio::task::yield_now().await;
    }
    assert!(world.containers.starts().is_empty());
    assert!(world.replica().is_some(), "its replica stays");
}

#[tokio::test]
async fn the_images_of_replicas_are_kept() {
    let world = World::running().await;
    images::remove_unused(&world.replicas).await;
    let image = image_of(&world.replica().unwrap()).unwrap();
    assert_eq!(world.containers.kept(), Some(HashSet::from([image.digest])));
}

#[test]
fn a_plan_follows_from_what_was_seen() {
    let replica = |phase: Option<&str>, ready: bool| -> Replica {
        let mut object = object();
        if let Some(phase) = phase {
            let status = if ready { "True" } else { "False" };
            object["status"] = json!({"phase": phase, "conditions": [{"type": "Ready", "status": status, "reason": "R",
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        }
        serde_json::from_value(object).unwrap()
    };
    let exit = |code| Exit {
        code,
        reason: "exited with code 7".into(),
        stderr_tail: "a\nlast line\n".into(),
        ..Exit::default()
    };
    let failed = Verdict::no("ContainerExited", "the container exited with code 7; its last line: last line");
    let unseen = |seconds| Observation::Unseen { since: Duration::from_secs(seconds), error: "EIO".into() };
    for (phase, ready, observation, want) in [
        (None, false, Observation::Seen(ObservedContainer::Absent), Step::Start),
        (None, false, Observation::Busy(Kind::Start), Step::Wait),
        (Some("Starting"), false, Observation::Seen(ObservedContainer::Running), Step::Start),
        (Some("Running"), true, Observation::Seen(ObservedContainer::Running), Step::Watch),
        (Some("Running"), true, Observation::Seen(ObservedContainer::Incomplete), Step::Start),
        (Some("Running"), true, Observation::Seen(ObservedContainer::Ended(exit(Some(7)))), Step::Fail(failed)),
        (Some("Running"), true, Observation::Seen(ObservedContainer::Ended(exit(None))), Step::Start),
        (Some("Running"), true, unseen(1), Step::LookAgain(None)),
        (Some("Unknown"), true, Observation::Seen(ObservedContainer::Running), Step::Watch),
        (Some("Unknown"), false, Observation::Seen(ObservedContainer::Running), Step::Start),
        (Some("Failed"), false, Observation::Seen(ObservedContainer::Absent), Step::Wait),
        (Some("Failed"), false, unseen(60), Step::Wait),
    ] {
        assert_eq!(plan(&replica(phase, ready), &observation, Duration::ZERO), want, "{phase:?} {observation:?}");
    }
    let step = plan(&replica(Some("Running"), true), &unseen(60), Duration::ZERO);
    assert!(matches!(&step, Step::LookAgain(Some(why)) if why.message.ends_with("EIO")), "{step:?}");
}
