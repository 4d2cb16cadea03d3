//! Computes the status of a service: pure.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::deletion;
use evroc_api::run::{Revision, Service, ServiceStatus, TrafficTarget};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::context::Settings;
use crate::names::{host_name, revision_name};
use crate::proven::proof;

/// Whether the newest template has a revision that is ready.
const CONFIGURATIONS_READY: &str = "ConfigurationsReady";
/// Whether requests have somewhere to go.
const ROUTES_READY: &str = "RoutesReady";

/// The status that follows from a service, its revisions, and why the API refused the newest one.
pub fn status(
    service: &Service,
    revisions: &[Revision],
    refused: Option<&str>,
    settings: &Settings,
    now: Timestamp,
) -> ServiceStatus {
    let mut status = service.status.clone().unwrap_or_default();
    let newest = revision_name(service);
    let is_proven = |r: &&Revision| r.status.as_ref().is_some_and(|s| proof(s).is_some());
    let newest_proven = revisions.iter().filter(is_proven).max_by_key(|r| r.spec.service_generation);
    let serving = newest_proven.map(|r| r.name_any());
    let port = if settings.https_port == 443 { String::new() } else { format!(":{}", settings.https_port) };
    status.url =
        Some(format!("https://{}{port}/", host_name(service, &settings.domain)).trim_end_matches('/').to_owned());
    status.observed_generation = service.metadata.generation;
    status.latest_created_revision_name = Some(newest.clone());
    status.latest_ready_revision_name = serving.clone();
    status.traffic = serving
        .iter()
        .map(|name| TrafficTarget { revision_name: name.clone(), percent: 100, latest_revision: *name == newest })
        .collect();

    let current = revisions.iter().find(|r| r.name_any() == newest);
    let configured = match current.and_then(|r| r.status.as_ref()).and_then(|s| conditions::get(&s.conditions, READY)) {
        _ if let Some(refused) = refused => {
            Verdict::no("RevisionRefused", format!("revision {newest} was refused: {refused}"))
        }
        Some(c) if c.status == "True" => Verdict::yes("Ready", format!("revision {newest} is ready")),
        Some(c) if c.status == "False" => Verdict::no(&c.reason, format!("revision {newest}: {}", c.message)),
        Some(c) => Verdict::unknown(&c.reason, format!("revision {newest}: {}", c.message)),
        None => Verdict::unknown("Deploying", format!("revision {newest} is being made")),
    };
    let routed = match &serving {
        Some(name) => Verdict::yes("Ready", format!("all requests go to revision {name}")),
        None => Verdict::unknown("NoReadyRevision", "no revision was ready yet"),
    };
    let ready = match (configured.status, routed.status) {
        ("True", "True") => Verdict::yes("Ready", format!("revision {newest} answers")),
        ("True", _) => routed.clone(),
        _ => configured.clone(),
    };
    let owned: Vec<String> = revisions.iter().map(|it| format!("Revision \"{}\"", it.name_any())).collect();
    let ready = match deletion::waits_for(&service.metadata, &[], &owned) {
        Some(blocker) => Verdict::no("Deleting", format!("the service is being deleted: {blocker}")),
        None => ready,
    };
    for (kind, verdict) in [(CONFIGURATIONS_READY, &configured), (ROUTES_READY, &routed), (READY, &ready)] {
        conditions::set(&mut status.conditions, kind, verdict, service.metadata.generation, now);
    }
    status
}
