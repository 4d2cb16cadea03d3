//! Tables: given what is observed, these steps and this status.

use std::time::Duration;

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::Replica;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::observe::Observed;
use super::plan::{Step, decision, plan};
use super::status::status;

const KEEP_IDLE: Duration = Duration::from_secs(15);

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn condition(status: &str, reason: &str) -> Value {
    json!({"type": "Ready", "status": status, "reason": reason, "message": "because", "lastTransitionTime": "1970-01-01T00:00:00Z"})
}

fn observed(status: Value, replicas: Vec<Replica>) -> Observed {
    Observed {
        revision: of(
            json!({"apiVersion": "run.evroclabs.net/v1alpha1", "kind": "Revision", "metadata": {"name": "hello-00001", "namespace": "demo"},
            "spec": {"service": "hello", "serviceGeneration": 1, "container": {"image": "registry.x/demo/hello:v1", "ports": [{"containerPort": 9000}]}}, "status": status}),
        ),
        newest: true,
        image: Ok(("demo/hello".into(), "sha256:1".into())),
        all_replicas: replicas.clone(),
        replicas,
        hosts: vec![of(
            json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Host", "metadata": {"name": "h"}, "spec": {}, "status": {"conditions": [condition("True", "Ready")]}}),
        )],
    }
}

fn replica(name: &str, phase: &str, ready: &str) -> Replica {
    of(
        json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Replica", "metadata": {"name": name, "namespace": "demo"}, "spec": {
        "hostName": "h", "epoch": 1, "service": "hello", "revision": "hello-00001", "repository": "demo/hello", "digest": "sha256:1", "port": 9000,
        "memoryBytes": 1, "cpuMillis": 1}, "status": {"phase": phase, "conditions": [condition(ready, "ContainerFailed")]}}),
    )
}

fn steps(observed: &Observed, now: Timestamp) -> Vec<Step> {
    plan(observed, &decision(observed, KEEP_IDLE, now), now)
}

fn proven(requests: i32, last: i64) -> Value {
    json!({"conditions": [condition("True", "Ready")], "load": {"waiting": 0, "inFlight": requests, "lastRequestTime": at(last).to_string()}})
}

#[test]
fn a_new_revision_gets_one_replica_with_the_containers_port() {
    let [Step::Create(name, spec)] = &steps(&observed(json!({}), vec![]), at(0))[..] else { panic!("other steps") };
    assert_eq!(
        (name.as_str(), spec.port, spec.digest.as_str(), spec.repository.as_str()),
        ("hello-00001-0", 9000, "sha256:1", "demo/hello")
    );
}

#[test]
fn it_is_ready_when_a_replica_is_and_stays_so_at_zero() {
    let ready = |o: &Observed| conditions::is_true(&status(o, &decision(o, KEEP_IDLE, at(0)), at(0)).conditions, READY);
    assert!(!ready(&observed(json!({}), vec![replica("hello-00001-0", "Starting", "False")])));
    assert!(ready(&observed(json!({}), vec![replica("hello-00001-0", "Running", "True")])));
    assert!(ready(&observed(proven(0, 0), vec![])));
}

#[test]
fn zero_when_idle_and_back_when_a_request_waits() {
    let idle = observed(proven(0, 0), vec![replica("hello-00001-0", "Running", "True")]);
    assert_eq!(steps(&idle, at(14)), vec![Step::LookAgain(Duration::from_secs(1))]);
    assert_eq!(steps(&idle, at(15)), vec![Step::Delete("hello-00001-0".into())]);
    let mut leaving = observed(proven(1, 15), idle.replicas.clone());
    leaving.replicas[0].metadata.deletion_timestamp = Some(of(json!("1970-01-01T00:00:00Z")));
    let [Step::Create(name, _)] = &steps(&leaving, at(16))[..] else { panic!("other steps") };
    assert_eq!(name, "hello-00001-1", "the one that leaves keeps its name until it is gone");
}

#[test]
fn a_failed_container_is_started_again_after_a_pause_and_its_reason_is_shown() {
    let failed = observed(json!({}), vec![replica("hello-00001-0", "Failed", "False")]);
    assert_eq!(steps(&failed, at(1)), vec![Step::LookAgain(Duration::from_secs(4))]);
    assert_eq!(steps(&failed, at(5)), vec![Step::Delete("hello-00001-0".into())]);
    let shown = status(&failed, &decision(&failed, KEEP_IDLE, at(0)), at(0));
    assert_eq!(conditions::get(&shown.conditions, READY).unwrap().reason, "ContainerFailed");
}

#[test]
fn an_image_that_may_not_run_starts_nothing() {
    let mut root = observed(json!({}), vec![]);
    root.image = Err(Verdict::no("RunsAsRoot", "because"));
    assert_eq!(steps(&root, at(0)), vec![]);
    root.image = Err(Verdict::no("ImageNotFound", "because"));
    assert_eq!(steps(&root, at(0)), vec![Step::LookAgain(Duration::from_secs(2))], "it may be pushed yet");
}

#[test]
fn surplus_replicas_go_and_those_that_answer_stay() {
    let many = observed(
        proven(1, 0),
        vec![replica("hello-00001-0", "Starting", "False"), replica("hello-00001-1", "Running", "True")],
    );
    assert_eq!(steps(&many, at(0)), vec![Step::Delete("hello-00001-0".into())]);
}
