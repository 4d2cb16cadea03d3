//! Computes the status of a revision: pure.

use evroc_api::conditions::{self, READY, Verdict};
use evroc_api::deletion;
use evroc_api::run::RevisionStatus;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::autoscale::Decision;
use super::observe::{Observed, is_ready};
use super::plan::no_room;
use super::restart::{has_failed, restarts};
use crate::proven::{PROVEN, proof};
use crate::reasons::{ACTIVE, UNSCHEDULABLE};

/// The status that the observed state amounts to.
pub fn status(observed: &Observed, decision: &Decision, now: Timestamp) -> RevisionStatus {
    let mut status = observed.revision.status.clone().unwrap_or_default();
    let generation = observed.revision.metadata.generation;
    let no_room = no_room(observed, decision);
    let ready = ready(observed, &status, no_room.as_deref());
    if let Some(proof) = proof(&status).cloned() {
        // Written by an earlier version in Ready: since when it holds is kept.
        let proven = Verdict::yes(&proof.reason, proof.message);
        conditions::set(&mut status.conditions, PROVEN, &proven, generation, proof.last_transition_time.0);
    } else {
        let proven = match observed.replicas.iter().any(is_ready) {
            true => Verdict::yes("Ready", "a container accepted connections on its port"),
            false => Verdict::unknown("NotYet", "no container has accepted connections yet"),
        };
        conditions::set(&mut status.conditions, PROVEN, &proven, generation, now);
    }
    conditions::set(&mut status.conditions, READY, &ready, generation, now);
    let answering = observed.replicas.iter().filter(|r| r.metadata.deletion_timestamp.is_none() && is_ready(r)).count();
    let active = match (answering, no_room) {
        (_, Some(why)) => Verdict::no(UNSCHEDULABLE, why),
        (0, None) => Verdict::no("NoReplica", decision.reason.clone()),
        (count, None) => Verdict::yes("Ready", format!("{count} replicas answer")),
    };
    conditions::set(&mut status.conditions, ACTIVE, &active, generation, now);
    if let Ok((_, digest)) = &observed.image {
        status.image_digest = Some(digest.clone());
    }
    status.desired_replicas = Some(decision.replicas);
    status.replicas = Some(i32::try_from(observed.replicas.len()).unwrap_or(i32::MAX));
    status.scaling_reason = Some(decision.reason.clone());
    status.restarts = restarts(observed).filter(|count| *count > 0);
    status
}

/// Ready is the result of the last start: zero replicas are no fault after one that answered, and a request starts another.
fn ready(observed: &Observed, status: &RevisionStatus, no_room: Option<&str>) -> Verdict {
    let owned: Vec<String> = observed.replicas.iter().map(|it| format!("Replica \"{}\"", it.name_any())).collect();
    if let Some(blocker) = deletion::waits_for(&observed.revision.metadata, &[], &owned) {
        return Verdict::no("Deleting", format!("the revision is being deleted: {blocker}"));
    }
    if let Err(why) = &observed.image {
        return why.clone();
    }
    if let Some(refused) = &observed.refused {
        return Verdict::no("ReplicaRefused", format!("the revision's container was refused: {refused}"));
    }
    if observed.replicas.iter().any(is_ready) {
        return Verdict::yes("Ready", "the container accepted connections on its port");
    }
    let before = conditions::get(&status.conditions, READY);
    let is_proven = proof(status).is_some();
    let failed = observed.replicas.iter().find(|replica| has_failed(replica));
    match failed.and_then(|replica| replica.status.as_ref()).and_then(|s| conditions::get(&s.conditions, READY)) {
        Some(why) => return Verdict::no(&why.reason, with_restarts(&why.message, observed)),
        None if !observed.newest && !is_proven => {
            return Verdict::no("Superseded", "a newer revision exists and this one was never ready");
        }
        None => {}
    }
    if let Some(why) = no_room {
        return Verdict::no(UNSCHEDULABLE, why);
    }
    match before {
        // A restart after a failure is still the failure, until it succeeds.
        Some(before)
            if before.status == "False"
                && (before.reason.starts_with("Container") || before.reason == "ImagePullFailed") =>
        {
            Verdict::no(&before.reason, before.message.clone())
        }
        _ if is_proven => Verdict::yes("Ready", "the container accepted connections on its port"),
        _ => Verdict::unknown("Deploying", "the first replica is being started"),
    }
}

/// A container that fails again and again says how often.
fn with_restarts(message: &str, observed: &Observed) -> String {
    match restarts(observed) {
        Some(count) if count > 1 => {
            format!("{message} (failure {count} in a row, it is started again after a longer pause each time)")
        }
        _ => message.to_owned(),
    }
}
