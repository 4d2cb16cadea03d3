//! What users read of a revision: pure.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::deletion;
use evroc_api::infra::ReplicaPhase;
use evroc_api::run::RevisionStatus;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::autoscale::Decision;
use super::observe::{Observed, is_ready};

/// Whether a replica answers now.
const ACTIVE: &str = "Active";

/// The status that the observed state amounts to.
pub fn status(observed: &Observed, decision: &Decision, now: Timestamp) -> RevisionStatus {
    let mut status = observed.revision.status.clone().unwrap_or_default();
    let generation = observed.revision.metadata.generation;
    let ready = ready(observed, &status);
    conditions::set(&mut status.conditions, READY, &ready, generation, now);
    let answering = observed.replicas.iter().filter(|r| r.metadata.deletion_timestamp.is_none() && is_ready(r)).count();
    let active = match answering {
        0 => Verdict::no("NoReplica", decision.reason.clone()),
        count => Verdict::yes("Ready", format!("{count} replicas answer")),
    };
    conditions::set(&mut status.conditions, ACTIVE, &active, generation, now);
    if let Ok((_, digest)) = &observed.image {
        status.image_digest = Some(digest.clone());
    }
    status.desired_replicas = Some(decision.replicas);
    status.replicas = Some(i32::try_from(observed.replicas.len()).unwrap_or(i32::MAX));
    status.scaling_reason = Some(decision.reason.clone());
    status
}

/// Ready once is ready for good: afterwards zero replicas are no fault, and a request starts one.
fn ready(observed: &Observed, status: &RevisionStatus) -> Verdict {
    let owned: Vec<String> = observed.replicas.iter().map(|it| format!("Replica \"{}\"", it.name_any())).collect();
    if let Some(whom) = deletion::waits_for(&observed.revision.metadata, &[], &owned) {
        return Verdict::no("Deleting", format!("the revision is being deleted: {whom}"));
    }
    if let Some(proven) = conditions::get(&status.conditions, READY).filter(|c| c.status == "True") {
        return Verdict::yes(&proven.reason, proven.message.clone());
    }
    if let Err(why) = &observed.image {
        return why.clone();
    }
    if observed.replicas.iter().any(is_ready) {
        return Verdict::yes("Ready", "the container accepted connections on its port");
    }
    let failed =
        observed.replicas.iter().filter_map(|r| r.status.as_ref()).find(|s| s.phase == Some(ReplicaPhase::Failed));
    match failed.and_then(|s| conditions::get(&s.conditions, READY)) {
        Some(why) => Verdict::no(&why.reason, why.message.clone()),
        None if !observed.newest => Verdict::no("Superseded", "a newer revision exists and this one was never ready"),
        // A restart after a failure is still the failure, until it succeeds.
        None => match conditions::get(&status.conditions, READY).filter(|c| c.status == "False") {
            Some(before) if before.reason.starts_with("Container") => {
                Verdict::no(&before.reason, before.message.clone())
            }
            _ => Verdict::unknown("Deploying", "the first replica is being started"),
        },
    }
}
