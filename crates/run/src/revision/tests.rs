//! Tables: given these observations, these steps and this status.

use std::collections::HashSet;
use std::time::Duration;

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::infra::{Replica, ReplicaPhase};
use evroc_placement::{HostFacts, Room};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::observe::{Observed, is_ready};
use super::plan::{Step, decision, plan};
use super::status::status;
use crate::proven::PROVEN;
use crate::reasons::{ACTIVE, UNSCHEDULABLE, is_failure};

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
        replicas,
        hosts: vec![host("h")],
        refused: None,
    }
}

/// A host with room for 20 containers.
fn host(name: &str) -> HostFacts {
    HostFacts {
        name: name.into(),
        is_ready: true,
        is_open: true,
        room: Some(Room { cpus: 2, memory_bytes: 10 << 30, disk_bytes: 0 }),
        ..HostFacts::default()
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
    assert_eq!(name, "hello-00001-1", "the one that leaves keeps its name until it is deleted");
}

fn shown(observed: &Observed, now: Timestamp) -> (String, String, String) {
    let status = status(observed, &decision(observed, KEEP_IDLE, now), now);
    let ready = conditions::get(&status.conditions, READY).unwrap();
    (ready.status.clone(), ready.reason.clone(), ready.message.clone())
}

#[test]
fn a_failed_container_is_started_again_after_a_pause_and_its_reason_is_shown() {
    let failed = observed(json!({}), vec![replica("hello-00001-0", "Failed", "False")]);
    assert_eq!(steps(&failed, at(1)), vec![Step::LookAgain(Duration::from_secs(9))]);
    assert_eq!(steps(&failed, at(10)), vec![Step::Delete("hello-00001-0".into())]);
    assert_eq!(shown(&failed, at(0)).1, "ContainerFailed");
}

#[test]
fn the_pause_doubles_up_to_five_minutes_and_the_count_is_passed_on() {
    let mut pauses = vec![];
    let mut observed = observed(json!({}), vec![]);
    for _ in 0..7 {
        let [Step::Create(name, spec)] = &steps(&observed, at(0))[..] else { panic!("other steps") };
        let mut failed = replica(name, "Failed", "False");
        failed.spec.restarts = spec.restarts;
        observed.replicas = vec![failed];
        let [Step::LookAgain(pause)] = &steps(&observed, at(0))[..] else { panic!("other steps") };
        pauses.push(pause.as_secs());
        let counted = status(&observed, &decision(&observed, KEEP_IDLE, at(0)), at(0));
        assert_eq!(counted.restarts, i32::try_from(pauses.len()).ok());
        observed.revision.status = Some(counted);
        observed.replicas.clear();
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    observed.replicas = vec![replica("hello-00001-0", "Failed", "False")];
    let ready = &mut observed.replicas[0].status.as_mut().unwrap().conditions[0];
    ready.reason = "ContainerInvalid".into();
    assert_eq!(steps(&observed, at(0)), vec![Step::LookAgain(Duration::from_secs(300))], "it can never run");
}

#[test]
fn the_first_failure_of_a_proven_revision_is_replaced_at_once() {
    let mut failed = observed(proven(1, 0), vec![replica("hello-00001-0", "Failed", "False")]);
    assert_eq!(steps(&failed, at(0)), vec![Step::Delete("hello-00001-0".into())]);
    failed.replicas[0].spec.restarts = 1;
    assert_eq!(steps(&failed, at(0)), vec![Step::LookAgain(Duration::from_secs(10))]);
    // One that ran for long has nothing to do with the failures before it.
    failed.replicas[0].spec.restarts = 5;
    failed.replicas[0].metadata.creation_timestamp = Some(of(json!(at(-3600).to_string())));
    assert_eq!(steps(&failed, at(0)), vec![Step::Delete("hello-00001-0".into())]);
}

#[test]
fn changes_after_it_was_ready_are_shown() {
    let mut killed = replica("hello-00001-0", "Failed", "False");
    let ready = &mut killed.status.as_mut().unwrap().conditions[0];
    (ready.reason, ready.message) = ("ContainerOutOfMemory".into(), "the container used more than 512 MB".into());
    killed.spec.restarts = 2;
    let mut observed = observed(proven(1, 0), vec![killed]);
    let found = shown(&observed, at(0));
    assert_eq!((found.0.as_str(), found.1.as_str()), ("False", "ContainerOutOfMemory"));
    assert!(found.2.contains("512 MB (failure 3 in a row"), "{}", found.2);
    assert!(is_failure(&found.1));
    let failed = status(&observed, &decision(&observed, KEEP_IDLE, at(0)), at(0));
    assert!(conditions::is_true(&failed.conditions, PROVEN), "requests still go to it");
    // The next start is the failure still, until it succeeds.
    observed.revision.status = Some(failed);
    observed.replicas = vec![replica("hello-00001-1", "Starting", "False")];
    assert_eq!(shown(&observed, at(5)).1, "ContainerOutOfMemory");
    observed.replicas = vec![];
    assert_eq!(shown(&observed, at(5)).1, "ContainerOutOfMemory", "nor does zero replicas hide it");
    observed.replicas = vec![replica("hello-00001-1", "Running", "True")];
    assert_eq!(shown(&observed, at(6)).0, "True");
}

#[test]
fn the_digest_is_in_the_status_before_a_replica_has_it() {
    let new = observed(json!({}), vec![]);
    let shown = status(&new, &decision(&new, KEEP_IDLE, at(0)), at(0));
    let [Step::Create(_, spec)] = &steps(&new, at(0))[..] else { panic!("other steps") };
    assert_eq!(shown.image_digest.as_ref(), Some(&spec.digest), "the status is written first");
}

#[test]
fn an_image_that_may_not_run_starts_nothing() {
    let mut wrong = observed(json!({}), vec![]);
    for (reason, newest, expected) in [
        // The message says: push it again.
        ("RunsAsRoot", true, vec![Step::LookAgain(Duration::from_secs(10))]),
        ("ImageNotFound", true, vec![Step::LookAgain(Duration::from_secs(2))]),
        ("ImageForeign", true, vec![]),
        ("ImageNotFound", false, vec![]),
        ("RunsAsRoot", false, vec![]),
    ] {
        wrong.image = Err(Verdict::no(reason, "because"));
        wrong.newest = newest;
        assert_eq!(steps(&wrong, at(0)), expected, "{reason}, newest: {newest}");
    }
}

#[test]
fn replicas_on_a_host_that_does_not_answer_are_replaced_elsewhere() {
    let mut two = observed(proven(1, 0), vec![replica("hello-00001-0", "Running", "True")]);
    two.hosts[0].is_ready = false;
    two.hosts[0].is_open = false;
    two.hosts.push(host("other"));
    let [Step::Create(name, spec)] = &steps(&two, at(0))[..] else { panic!("other steps") };
    assert_eq!((name.as_str(), spec.host_name.as_str()), ("hello-00001-1", "other"));
    // When it answers again there is one too many: the younger goes.
    let mut younger = replica("hello-00001-1", "Running", "True");
    younger.spec.host_name = "other".into();
    younger.metadata.creation_timestamp = Some(of(json!(at(5).to_string())));
    two.replicas[0].metadata.creation_timestamp = Some(of(json!(at(1).to_string())));
    two.replicas.push(younger);
    assert_eq!(steps(&two, at(6)), vec![], "one answers and one is out of reach");
    two.hosts[0].is_ready = true;
    assert_eq!(steps(&two, at(6)), vec![Step::Delete("hello-00001-1".into())]);
    // And with no requests none is kept, wherever it is.
    two.hosts[0].is_ready = false;
    two.revision.status = Some(of(proven(0, 0)));
    assert_eq!(steps(&two, at(100)).len(), 2);
}

#[test]
fn replicas_go_where_memory_is_left_and_report_when_none_is() {
    let mut full = observed(proven(60, 0), vec![]);
    full.hosts.push(host("other"));
    full.hosts[0].promised.memory_bytes = (10 << 30) - (512 << 20);
    let hosts = |observed: &Observed| -> Vec<String> {
        let created = steps(observed, at(0)).into_iter();
        created.filter_map(|s| if let Step::Create(_, spec) = s { Some(spec.host_name) } else { None }).collect()
    };
    assert_eq!(hosts(&full), ["other", "other", "other"]);
    full.hosts[1].promised.memory_bytes = (10 << 30) - (512 << 20);
    assert_eq!(hosts(&full), ["h", "other"], "one on each, and none for the third");
    let shown = status(&full, &decision(&full, KEEP_IDLE, at(0)), at(0));
    let active = conditions::get(&shown.conditions, ACTIVE).unwrap();
    assert_eq!((active.status.as_str(), active.reason.as_str()), ("False", UNSCHEDULABLE));
    assert!(active.message.contains("2 hosts: 2 have 0.0 GB of memory free"), "{}", active.message);
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

        assert_eq!(created.len(), wanted.saturating_sub(alive.len()), "exactly the missing ones");
        let names: HashSet<&String> = created.iter().copied().collect();
        assert_eq!(names.len(), created.len());
        assert!(observed.replicas.iter().all(|r| !names.contains(&r.name_any())), "a name is free when its object is deleted");

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
        assert_eq!(leaving.filter(|r| deleted(&r)).count(), 0, "what leaves is not deleted twice");
    }

    #[test]
    fn carrying_the_plan_out_leaves_nothing_to_create(replicas in any_replicas(), requests in 0..300) {
        let mut observed = observed(proven(requests, 100), replicas);
        for step in steps(&observed, at(100)) {
            match step {
                Step::Create(name, _) => observed.replicas.push(replica(&name, "Starting", "False")),
                Step::Delete(name) => {
                    let removed = observed.replicas.iter_mut().find(|r| r.name_any() == name).unwrap();
                    removed.metadata.deletion_timestamp = Some(of(json!(at(100).to_string())));
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
    fn a_revision_that_was_ready_stays_proven_whatever_comes(replicas in any_replicas(), requests in 0..300, newest: bool, why in 0..4) {
        let mut observed = observed(proven(requests, 100), replicas);
        observed.newest = newest;
        observed.image = match why {
            0 => Ok(("demo/hello".into(), "sha256:1".into())),
            1 => Err(Verdict::no("ImageNotFound", "because")),
            2 => Err(Verdict::no("RunsAsRoot", "because")),
            _ => Err(Verdict::unknown("RegistryUnavailable", "because")),
        };
        let shown = status(&observed, &decision(&observed, KEEP_IDLE, at(500)), at(500));
        let proof = conditions::get(&shown.conditions, PROVEN).unwrap();
        assert_eq!((proof.status.as_str(), proof.last_transition_time.0), ("True", at(0)), "since when it was");
        assert_eq!(shown.load, observed.revision.status.unwrap().load, "the load is the gateway's");
    }
}
