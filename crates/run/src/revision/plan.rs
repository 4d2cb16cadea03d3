//! What is to be done for a revision: pure.

use std::time::Duration;

use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Host, Replica, ReplicaPhase, ReplicaSpec};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::autoscale::{Decision, Facts, decide};
use super::observe::{Observed, is_ready};

/// What a container may use, fixed by the platform: memory in bytes, thousandths of a processor.
const LIMITS: (u64, u32) = (512 << 20, 1000);
/// How long after a failure a container is started again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Start a replica of this name.
    Create(String, Box<ReplicaSpec>),
    /// Stop the replica of this name.
    Delete(String),
    /// Look again later.
    LookAgain(Duration),
}

/// How many replicas there should be.
pub fn decision(observed: &Observed, keep_idle: Duration, now: Timestamp) -> Decision {
    let status = observed.revision.status.as_ref();
    let ready = status.and_then(|s| conditions::get(&s.conditions, READY)).filter(|c| c.status == "True");
    let facts = Facts {
        proven: ready.is_some(),
        newest: observed.newest,
        load: status.and_then(|s| s.load.as_ref()),
        proven_since: ready.map(|c| c.last_transition_time.0),
        keep_idle,
    };
    decide(facts, now)
}

/// What the observed state asks for.
pub fn plan(observed: &Observed, decision: &Decision, now: Timestamp) -> Vec<Step> {
    let mut steps: Vec<Step> = decision.again_in.map(Step::LookAgain).into_iter().collect();
    if observed.revision.metadata.deletion_timestamp.is_some() {
        return vec![];
    }
    let (repository, digest) = match &observed.image {
        Ok(image) => image,
        Err(why) if why.status == "Unknown" || why.reason == "ImageNotFound" => {
            return vec![Step::LookAgain(Duration::from_secs(2))];
        }
        Err(_) => return vec![],
    };
    let mut alive: Vec<&Replica> =
        observed.replicas.iter().filter(|r| r.metadata.deletion_timestamp.is_none()).collect();
    // Those that answer are kept first, the oldest of them before the others.
    alive.sort_by_key(|r| (!is_ready(r), r.metadata.creation_timestamp.clone().map(|t| t.0)));
    let wanted = usize::try_from(decision.replicas).unwrap_or(0);
    for surplus in alive.iter().skip(wanted) {
        steps.push(Step::Delete(surplus.name_any()));
    }
    for failed in alive.iter().take(wanted).filter(|r| phase(r) == Some(ReplicaPhase::Failed)) {
        match pause(failed, now) {
            Duration::ZERO => steps.push(Step::Delete(failed.name_any())),
            left => steps.push(Step::LookAgain(left)),
        }
    }
    let mut names = free_names(observed);
    let mut taken: Vec<String> = vec![];
    for _ in alive.len()..wanted {
        let (Some(host_name), Some(name)) = (place(observed, &taken), names.next()) else {
            steps.push(Step::LookAgain(Duration::from_secs(1)));
            break;
        };
        taken.push(host_name.clone());
        let container = &observed.revision.spec.container;
        steps.push(Step::Create(
            name,
            Box::new(ReplicaSpec {
                host_name,
                epoch: now.as_millisecond(),
                service: observed.revision.spec.service.clone(),
                revision: observed.revision.name_any(),
                repository: repository.clone(),
                digest: digest.clone(),
                command: container.command.clone(),
                args: container.args.clone(),
                env: container.env.clone(),
                port: container.port(),
                memory_bytes: LIMITS.0,
                cpu_millis: LIMITS.1,
            }),
        ));
    }
    steps
}

fn phase(replica: &Replica) -> Option<ReplicaPhase> {
    replica.status.as_ref()?.phase
}

fn pause(failed: &Replica, now: Timestamp) -> Duration {
    let since =
        failed.status.as_ref().and_then(|s| conditions::get(&s.conditions, READY)).map(|c| c.last_transition_time.0);
    let waited = since.map_or(Duration::MAX, |since| now.duration_since(since).unsigned_abs());
    PAUSE_AFTER_FAILURE.saturating_sub(waited)
}

/// Names that follow from what is observed: a create that was repeated after a crash meets the first one.
fn free_names(observed: &Observed) -> impl Iterator<Item = String> + '_ {
    let revision = observed.revision.name_any();
    let taken: Vec<String> = observed.replicas.iter().map(ResourceExt::name_any).collect();
    (0..).map(move |n| format!("{revision}-{n}")).filter(move |name| !taken.contains(name))
}

/// The ready host with the fewest replicas, those just planned included; ties go to the first name.
fn place(observed: &Observed, planned: &[String]) -> Option<String> {
    let ready = |h: &&Host| {
        !h.spec.unschedulable && h.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, READY))
    };
    let count = |name: &str| {
        observed.all_replicas.iter().filter(|r| r.spec.host_name == name).count()
            + planned.iter().filter(|p| *p == name).count()
    };
    observed.hosts.iter().filter(ready).map(ResourceExt::name_any).min_by_key(|name| (count(name), name.clone()))
}
