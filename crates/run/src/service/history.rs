//! Decides which revisions of a service are kept. Pure.

use evroc_api::run::{Revision, ServiceStatus};
use kube::ResourceExt;

/// How many revisions a service keeps beside those that have traffic. Too low takes the history away from users who look for
/// what changed; too high has a service that is deployed every hour fill the store.
const KEPT: usize = 20;

/// The revisions that can go: the oldest of those that have no traffic and are not the newest template's.
pub(super) fn superfluous<'a>(revisions: &'a [Revision], status: &ServiceStatus) -> Vec<&'a Revision> {
    let is_needed = |revision: &&Revision| {
        let name = revision.name_any();
        status.latest_created_revision_name.as_ref() == Some(&name)
            || status.traffic.iter().any(|target| target.revision_name == name)
    };
    let mut newest_first: Vec<&Revision> = revisions.iter().collect();
    newest_first.sort_by_key(|revision| std::cmp::Reverse(revision.spec.service_generation));
    let superfluous = newest_first.into_iter().skip(KEPT).filter(|revision| !is_needed(revision));
    superfluous.filter(|revision| revision.metadata.deletion_timestamp.is_none()).collect()
}
