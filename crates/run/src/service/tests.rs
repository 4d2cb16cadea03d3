//! Tables: given a service and its revisions, this is what users read.

use std::time::Duration;

use evroc_api::conditions::{self, READY};
use evroc_api::run::{Revision, Service, ServiceStatus};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::history::superfluous;
use super::status::status;
use crate::context::Settings;
use crate::names::{host_name, revision_name};

fn service(generation: i64) -> Service {
    let value = json!({"apiVersion": "run.evroclabs.net/v1alpha1", "kind": "Service",
        "metadata": {"name": "hello", "namespace": "demo", "uid": "5f0c", "generation": generation},
        "spec": {"template": {"spec": {"containers": [{"image": "registry.x/demo/hello:v1"}]}}}});
    serde_json::from_value(value).unwrap()
}

fn revision(generation: i64, ready: &str, reason: &str) -> Revision {
    let conditions: Vec<Value> = if ready.is_empty() {
        vec![]
    } else {
        vec![
            json!({"type": "Ready", "status": ready, "reason": reason, "message": "because", "lastTransitionTime": "1970-01-01T00:00:00Z"}),
        ]
    };
    let value = json!({"apiVersion": "run.evroclabs.net/v1alpha1", "kind": "Revision",
        "metadata": {"name": format!("hello-{generation:05}"), "namespace": "demo"},
        "spec": {"service": "hello", "serviceGeneration": generation, "container": {"image": "registry.x/demo/hello:v1"}},
        "status": {"conditions": conditions}});
    serde_json::from_value(value).unwrap()
}

fn settings(https_port: u16) -> Settings {
    Settings { domain: "evroc.localhost".into(), https_port, scale_to_zero_after: Duration::from_secs(15) }
}

fn shown(generation: i64, revisions: &[Revision]) -> ServiceStatus {
    status(&service(generation), revisions, None, &settings(443), Timestamp::UNIX_EPOCH)
}

#[test]
fn requests_go_to_the_newest_revision_that_was_ready() {
    let cases = [
        ("nothing yet", 1, vec![], None, "Unknown", "Deploying"),
        ("the first starts", 1, vec![revision(1, "Unknown", "Deploying")], None, "Unknown", "Deploying"),
        ("the first is not looked at yet", 1, vec![revision(1, "", "")], None, "Unknown", "Deploying"),
        ("the first fails", 1, vec![revision(1, "False", "RunsAsRoot")], None, "False", "RunsAsRoot"),
        ("the first answers", 1, vec![revision(1, "True", "Ready")], Some("hello-00001"), "True", "Ready"),
        (
            "the second starts",
            2,
            vec![revision(2, "Unknown", "Deploying"), revision(1, "True", "Ready")],
            Some("hello-00001"),
            "Unknown",
            "Deploying",
        ),
        (
            "the second fails",
            2,
            vec![revision(1, "True", "Ready"), revision(2, "False", "ContainerFailed")],
            Some("hello-00001"),
            "False",
            "ContainerFailed",
        ),
        (
            "the second answers, in any order",
            2,
            vec![revision(2, "True", "Ready"), revision(1, "True", "Ready")],
            Some("hello-00002"),
            "True",
            "Ready",
        ),
        // By number and not by word: 100000 comes after 99999.
        (
            "many",
            100_000,
            vec![revision(100_000, "True", "Ready"), revision(99_999, "True", "Ready")],
            Some("hello-100000"),
            "True",
            "Ready",
        ),
    ];
    for (name, generation, revisions, target, ready, reason) in cases {
        let shown = shown(generation, &revisions);
        let targets: Vec<&str> = shown.traffic.iter().map(|t| t.revision_name.as_str()).collect();
        assert_eq!(targets, Vec::from_iter(target), "{name}");
        assert_eq!(shown.latest_ready_revision_name.as_deref(), target, "{name}");
        assert_eq!(shown.latest_created_revision_name, Some(revision_name(&service(generation))), "{name}");
        let condition = conditions::get(&shown.conditions, READY).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), (ready, reason), "{name}");
        assert_eq!(shown.observed_generation, Some(generation), "{name}");
    }
}

#[test]
fn addresses_are_stable_labels_and_show_the_port_where_it_matters() {
    let host = host_name(&service(1), "evroc.localhost");
    assert_eq!(host, host_name(&service(7), "evroc.localhost"), "for the life of the service");
    let mut later = service(1);
    later.metadata.uid = Some("another".into());
    assert_ne!(host, host_name(&later, "evroc.localhost"), "a later service of the same name has its own");
    let label = host.strip_suffix(".evroc.localhost").unwrap();
    assert!(label.starts_with("svc-") && label.len() <= 63);
    assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{label}");
    let url = |port| status(&service(1), &[], None, &settings(port), Timestamp::UNIX_EPOCH).url.unwrap();
    assert_eq!(url(443), format!("https://{host}"));
    assert_eq!(url(8443), format!("https://{host}:8443"));
}

#[test]
fn a_revision_that_fails_after_it_was_ready_keeps_its_traffic_and_the_service_reports_it() {
    let mut failing = revision(1, "False", "ContainerOutOfMemory");
    let proven = json!({"type": "Proven", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z"});
    failing.status.as_mut().unwrap().conditions.push(serde_json::from_value(proven).unwrap());
    let shown = shown(1, &[failing]);
    assert_eq!(shown.traffic[0].revision_name, "hello-00001");
    let ready = conditions::get(&shown.conditions, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "ContainerOutOfMemory"));
}

#[test]
fn a_refused_revision_is_a_condition() {
    let refused = Some("metadata.labels: must be no more than 63 characters");
    let shown = status(&service(1), &[], refused, &settings(443), Timestamp::UNIX_EPOCH);
    let ready = conditions::get(&shown.conditions, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "RevisionRefused"));
    assert!(ready.message.contains("63 characters"), "{}", ready.message);
}

#[test]
fn twenty_revisions_are_kept_and_those_with_traffic() {
    let mut revisions: Vec<Revision> = (2..=25).map(|n| revision(n, "False", "ContainerFailed")).collect();
    revisions.push(revision(1, "True", "Ready"));
    let shown = shown(25, &revisions);
    assert_eq!(shown.traffic[0].revision_name, "hello-00001");
    let mut deleted: Vec<i64> = superfluous(&revisions, &shown).iter().map(|r| r.spec.service_generation).collect();
    deleted.sort_unstable();
    assert_eq!(deleted, [2, 3, 4, 5], "the first has the traffic");
    assert!(superfluous(&revisions[..20], &shown).is_empty());
}
