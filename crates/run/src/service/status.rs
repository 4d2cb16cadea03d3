//! What users read of a service: pure.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::deletion;
use evroc_api::run::{Revision, Service, ServiceStatus, TrafficTarget};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::Settings;

/// Whether the newest template has a revision that is ready.
const CONFIGURATIONS_READY: &str = "ConfigurationsReady";
/// Whether requests have somewhere to go.
const ROUTES_READY: &str = "RoutesReady";

/// The revision of a service's present template.
pub fn revision_name(service: &Service) -> String {
    format!("{}-{:05}", service.name_any(), service.metadata.generation.unwrap_or(1))
}

/// The service's host name: `svc-<id>.<domain>`. The id follows from the uid: stable for the service's life, and never
/// the same again for a later service of the same name.
pub fn host_name(service: &Service, domain: &str) -> String {
    let hash = Sha256::digest(service.uid().unwrap_or_default());
    let letters = b"abcdefghijklmnopqrstuvwxyz234567";
    let id: String = hash.iter().take(10).map(|byte| char::from(letters[usize::from(byte % 32)])).collect();
    format!("svc-{id}.{domain}")
}

/// The status that follows from a service and its revisions.
pub fn status(service: &Service, revisions: &[Revision], settings: &Settings, now: Timestamp) -> ServiceStatus {
    let mut status = service.status.clone().unwrap_or_default();
    let newest = revision_name(service);
    let is_ready = |r: &&Revision| r.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, READY));
    let mut ready: Vec<&Revision> = revisions.iter().filter(is_ready).collect();
    ready.sort_by_key(|r| r.spec.service_generation);
    let serving = ready.last().map(|r| r.name_any());
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
        Some(whom) => Verdict::no("Deleting", format!("the service is being deleted: {whom}")),
        None => ready,
    };
    for (kind, verdict) in [(CONFIGURATIONS_READY, &configured), (ROUTES_READY, &routed), (READY, &ready)] {
        conditions::set(&mut status.conditions, kind, verdict, service.metadata.generation, now);
    }
    status
}
