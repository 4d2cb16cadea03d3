//! Plans the next steps for a revision: pure.

use std::time::Duration;

use evroc_api::conditions::Verdict;
use evroc_api::infra::{Replica, ReplicaSpec};
use evroc_placement::{HostFacts, Need, Unplaceable, choose, gigabytes};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::autoscale::{Decision, Facts, decide};
use super::observe::{Observed, is_ready};
use super::restart::{has_failed, pause, restarts};
use crate::proven::proof;

/// The memory that a container may use, in bytes.
const MEMORY_BYTES: u64 = 512 << 20;
/// A container's limit of processor time, in thousandths of a processor.
const CPU_MILLIS: u32 = 1000;
/// How long to wait before a missing image is looked for again. Too low queries the registry all the time; too high keeps
/// users waiting who have just pushed it.
const LOOK_FOR_IMAGE: Duration = Duration::from_secs(2);
/// The same for an image that exists and may not run: it has to be built again.
const LOOK_FOR_BETTER_IMAGE: Duration = Duration::from_secs(10);
/// How long to wait for a host that the store refused a moment ago, or for a rule that refused the replica.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

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
    let proof = status.and_then(proof);
    let facts = Facts {
        proven: proof.is_some(),
        newest: observed.newest,
        load: status.and_then(|s| s.load.as_ref()),
        proven_since: proof.map(|c| c.last_transition_time.0),
        keep_idle,
    };
    decide(facts, now)
}

/// Returns the steps that the observed state requires.
pub fn plan(observed: &Observed, decision: &Decision, now: Timestamp) -> Vec<Step> {
    let mut steps: Vec<Step> = decision.again_in.map(Step::LookAgain).into_iter().collect();
    if observed.revision.metadata.deletion_timestamp.is_some() {
        return vec![];
    }
    let (repository, digest) = match &observed.image {
        Ok(image) => image,
        Err(why) => return look_for_image(observed, why),
    };
    let wanted = usize::try_from(decision.replicas).unwrap_or(0);
    let alive = alive(observed, wanted);
    for surplus in alive.iter().skip(wanted) {
        steps.push(Step::Delete(surplus.name_any()));
    }
    for failed in alive.iter().take(wanted).filter(|replica| has_failed(replica)) {
        match pause(observed, failed, now) {
            Duration::ZERO => steps.push(Step::Delete(failed.name_any())),
            left => steps.push(Step::LookAgain(left)),
        }
    }
    if observed.refused.is_some() || observed.hosts.iter().any(|host| host.refused.is_some()) {
        steps.push(Step::LookAgain(AFTER_REFUSAL));
    }
    if observed.refused.is_some() {
        return steps;
    }
    let mut names = free_names(observed);
    let mut hosts = observed.hosts.clone();
    for _ in alive.len()..wanted {
        let (Ok(host_name), Some(name)) = (place(&mut hosts), names.next()) else { break };
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
                memory_bytes: MEMORY_BYTES,
                cpu_millis: CPU_MILLIS,
                restarts: restarts(observed).unwrap_or_default(),
            }),
        ));
    }
    steps
}

/// An image that may be pushed yet is looked for again, as long as the revision is the one that its user wants.
fn look_for_image(observed: &Observed, why: &Verdict) -> Vec<Step> {
    let pause = match why.reason.as_str() {
        _ if !observed.newest => return vec![],
        "ImageNotFound" | "RegistryUnavailable" => LOOK_FOR_IMAGE,
        "RunsAsRoot" | "ImagePlatform" | "ImageUnreadable" => LOOK_FOR_BETTER_IMAGE,
        // Only another spec helps.
        _ => return vec![],
    };
    vec![Step::LookAgain(pause)]
}

/// The replicas that count, those that answer first and the oldest of them before the others. A replica on a host that does not
/// answer does not count, so that others take its place; it goes when nothing is wanted any more.
fn alive(observed: &Observed, wanted: usize) -> Vec<&Replica> {
    let present = observed.replicas.iter().filter(|replica| replica.metadata.deletion_timestamp.is_none());
    let mut alive: Vec<&Replica> =
        present.filter(|replica| wanted == 0 || observed.is_on_a_ready_host(replica)).collect();
    alive.sort_by_key(|r| (!is_ready(r), r.metadata.creation_timestamp.clone().map(|t| t.0)));
    alive
}

/// The reason why another replica is wanted and has no host.
pub fn no_room(observed: &Observed, decision: &Decision) -> Option<String> {
    let wanted = usize::try_from(decision.replicas).unwrap_or(0);
    let missing = wanted.saturating_sub(alive(observed, wanted).len());
    let mut hosts = observed.hosts.clone();
    let why = (0..missing).find_map(|_| place(&mut hosts).err())?;
    Some(match why {
        Unplaceable::NoRoom(hosts) => {
            format!(
                "a container needs {} of memory, but {hosts}; stop a VM or another service",
                gigabytes(MEMORY_BYTES)
            )
        }
        Unplaceable::NoHost(found) => {
            format!("expected a host that is ready, found: {found}; `evrocd status` says why")
        }
        _ => "no host has reported its memory yet".into(),
    })
}

/// Names that follow from the observation: a create that was repeated after a crash meets the first one.
fn free_names(observed: &Observed) -> impl Iterator<Item = String> + '_ {
    let revision = observed.revision.name_any();
    let taken: Vec<String> = observed.replicas.iter().map(ResourceExt::name_any).collect();
    (0..).map(move |n| format!("{revision}-{n}")).filter(move |name| !taken.contains(name))
}

/// A host for one more replica, which is then promised of it.
fn place(hosts: &mut [HostFacts]) -> Result<String, Unplaceable> {
    let name = choose(hosts, &Need { memory_bytes: MEMORY_BYTES, ..Need::default() })?.name.clone();
    if let Some(host) = hosts.iter_mut().find(|host| host.name == name) {
        host.promised.memory_bytes = host.promised.memory_bytes.saturating_add(MEMORY_BYTES);
    }
    Ok(name)
}
