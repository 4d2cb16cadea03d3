//! Tables: given what is observed, these steps and this status.

use std::collections::HashSet;
use std::time::Duration;

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Replica, ReplicaPhase};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::observe::{Observed, is_ready};
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

/// Replicas in any state: phase, ready, leaving.
fn any_replicas() -> impl Strategy<Value = Vec<Replica>> {
    let phase = select(vec!["Pending", "Starting", "Running", "Failed", "Stopping"]);
    prop::collection::vec((phase, any::<bool>(), any::<bool>(), 0..100i64), 0..15).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(n, (phase, ready, leaving, made))| {
                let ready = if ready && phase == "Running" { "True" } else { "False" };
                let mut replica = replica(&format!("hello-00001-{n}"), phase, ready);
                replica.metadata.creation_timestamp = Some(of(json!(at(made).to_string())));
                replica.metadata.deletion_timestamp = leaving.then(|| of(json!(at(made).to_string())));
                replica
            })
            .collect()
    })
}

fn is_leaving(replica: &Replica) -> bool {
    replica.metadata.deletion_timestamp.is_some()
}

proptest! {
    #[test]
    fn never_more_than_wanted_and_those_that_answer_go_last(replicas in any_replicas(), requests in 0..300, now in 0..200i64) {
        let observed = observed(proven(requests, 100), replicas);
        let wanted = usize::try_from(decision(&observed, KEEP_IDLE, at(now)).replicas).unwrap();
        let steps = steps(&observed, at(now));
        let alive: Vec<&Replica> = observed.replicas.iter().filter(|r| !is_leaving(r)).collect();
        let deleted = |r: &&&Replica| steps.contains(&Step::Delete(r.name_any()));
        let created: Vec<&String> = steps.iter().filter_map(|s| if let Step::Create(name, _) = s { Some(name) } else { None }).collect();

        assert_eq!(created.len(), wanted.saturating_sub(alive.len()), "exactly what is missing");
        let names: HashSet<&String> = created.iter().copied().collect();
        assert_eq!(names.len(), created.len());
        assert!(observed.replicas.iter().all(|r| !names.contains(&r.name_any())), "a name is free when its object is gone");

        let surplus = alive.len().saturating_sub(wanted);
        let of_phase = |r: &Replica, phase| r.status.as_ref().unwrap().phase == Some(phase);
        let in_order = alive.iter().filter(deleted).filter(|r| !of_phase(r, ReplicaPhase::Failed)).count();
        assert!(in_order <= surplus, "only surplus and failed ones go");
        assert!(alive.iter().filter(deleted).count() >= surplus);
        if alive.iter().filter(deleted).any(|r| is_ready(r)) {
            let kept: Vec<_> = alive.iter().filter(|r| !deleted(r)).collect();
            assert!(kept.iter().all(|r| is_ready(r)), "one that answers goes only when all that stay answer");
        }
        let leaving = observed.replicas.iter().filter(|r| is_leaving(r));
        assert_eq!(leaving.filter(|r| deleted(&r)).count(), 0, "what leaves is not told twice");
    }

    #[test]
    fn carrying_the_plan_out_leaves_nothing_to_create(replicas in any_replicas(), requests in 0..300) {
        let mut observed = observed(proven(requests, 100), replicas);
        for step in steps(&observed, at(100)) {
            match step {
                Step::Create(name, _) => observed.replicas.push(replica(&name, "Starting", "False")),
                Step::Delete(name) => {
                    let gone = observed.replicas.iter_mut().find(|r| r.name_any() == name).unwrap();
                    gone.metadata.deletion_timestamp = Some(of(json!(at(100).to_string())));
                }
                Step::LookAgain(_) => {}
            }
        }
        // Those that failed are replaced by the next round, and that is the last.
        for _ in 0..2 {
            let next = steps(&observed, at(100));
            for step in &next {
                if let Step::Create(name, _) = step {
                    observed.replicas.push(replica(name, "Starting", "False"));
                }
            }
        }
        let last = steps(&observed, at(100));
        assert!(last.iter().all(|step| matches!(step, Step::LookAgain(_))), "{last:?}");
    }

    #[test]
    fn a_revision_that_was_ready_stays_ready_whatever_comes(replicas in any_replicas(), requests in 0..300, newest: bool, why in 0..4) {
        let mut observed = observed(proven(requests, 100), replicas);
        observed.newest = newest;
        observed.image = match why {
            0 => Ok(("demo/hello".into(), "sha256:1".into())),
            1 => Err(Verdict::no("ImageNotFound", "because")),
            2 => Err(Verdict::no("RunsAsRoot", "because")),
            _ => Err(Verdict::unknown("RegistryUnavailable", "because")),
        };
        let shown = status(&observed, &decision(&observed, KEEP_IDLE, at(500)), at(500));
        let ready = conditions::get(&shown.conditions, READY).unwrap();
        assert_eq!((ready.status.as_str(), ready.last_transition_time.0), ("True", at(0)), "since when it was");
        assert_eq!(shown.load, observed.revision.status.unwrap().load, "the load is the gateway's");
    }
}
