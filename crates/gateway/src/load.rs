//! Reports the load of revisions: immediately when the first request arrives, a little later when the last one ended, and
//! at intervals while the number of requests changes. The autoscaler decides from it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use evroc_api::run::{Load, Revision};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::table::{Key, Requests, Table};
use crate::time;

/// How long a change that is not urgent waits. Too low makes every request a durable write; too high makes the
/// autoscaler slow.
const SETTLE: Duration = Duration::from_secs(1);
/// How long after a failed report it is tried again: a request at zero waits for it.
const RETRY: Duration = Duration::from_millis(250);
/// The longest that the API may take for one report.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an idle revision is remembered. Too low writes more often for a revision with occasional requests.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The most reports under way. Too low lets slow writes delay the wake of other revisions; too high floods an API that is slow.
const MOST_AT_ONCE: usize = 64;

/// The last report of a revision.
#[derive(Clone, Copy)]
struct Reported {
    requests: Requests,
    at: Instant,
    is_written: bool,
}

/// Reports until the process ends.
pub async fn report(client: Client, table: Arc<Table>) {
    let mut reported = loop {
        match previous_reports(&client).await {
            Ok(reported) => break reported,
            Err(error) => tracing::warn!(%error, "cannot read revisions, will be tried again"),
        }
        time::sleep(RETRY).await;
    };
    // One report of a revision at a time; those of different revisions do not wait for each other.
    let mut writing = FuturesUnordered::new();
    let mut being_written: HashSet<Key> = HashSet::new();
    loop {
        let mut current = table.requests();
        // Requests that a previous process reported ended with it.
        for revision in reported.keys() {
            current.entry(revision.clone()).or_default();
        }
        let mut look_again: Option<Instant> = None;
        for (revision, requests) in current {
            if being_written.contains(&revision) {
                continue;
            }
            let before = reported.get(&revision).copied();
            let next = match due(before, requests, time::now()) {
                Due::Now if writing.len() >= MOST_AT_ONCE => None,
                Due::Now => {
                    being_written.insert(revision.clone());
                    let client = &client;
                    writing.push(async move { (write(client, &revision, requests).await, revision, requests) });
                    None
                }
                Due::At(when) => Some(when),
                Due::Never => {
                    if before.is_some_and(|before| requests.is_idle() && before.at + REMEMBERED <= time::now()) {
                        reported.remove(&revision);
                        table.forget_requests(&revision, requests);
                    }
                    None
                }
            };
            look_again = [look_again, next].into_iter().flatten().min();
        }
        let pause = async {
            match look_again {
                Some(when) => time::sleep_until(when).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = table.load_changed.notified() => {}
            Some((is_written, revision, requests)) = writing.next(), if !writing.is_empty() => {
                being_written.remove(&revision);
                reported.insert(revision, Reported { requests, at: time::now(), is_written });
            }
            () = pause => {}
        }
    }
}

/// When a report is due.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Now,
    At(Instant),
    Never,
}

fn due(before: Option<Reported>, requests: Requests, now: Instant) -> Due {
    let at = |when| if now >= when { Due::Now } else { Due::At(when) };
    match before {
        None => Due::Now,
        Some(before) if !before.is_written => at(before.at + RETRY),
        Some(before) if before.requests == requests => Due::Never,
        Some(before) if before.requests.is_idle() && !requests.is_idle() => Due::Now,
        Some(before) => at(before.at + SETTLE),
    }
}

/// Writes the load to the revision's status. A deleted revision counts as reported.
async fn write(client: &Client, revision: &Key, requests: Requests) -> bool {
    let last = requests.last.unwrap_or_else(Timestamp::now);
    let load = Load { waiting: requests.waiting, in_flight: requests.in_flight, last_request_time: Some(Time(last)) };
    let api = Api::<Revision>::namespaced(client.clone(), &revision.namespace);
    let patch = Patch::Merge(json!({"status": {"load": load}}));
    let params = PatchParams::default();
    match time::timeout(ANSWER, api.patch_status(&revision.name, &params, &patch)).await {
        Ok(Ok(_)) => true,
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => true,
        Ok(Err(error)) => {
            tracing::warn!(revision = revision.name, %error, "cannot report load, will be tried again");
            false
        }
        Err(_) => {
            tracing::warn!(revision = revision.name, "the API does not answer a report of load, will be tried again");
            false
        }
    }
}

/// Reads the report of a previous process of the gateway, as if it had been made just now: its requests ended with it.
async fn previous_reports(client: &Client) -> kube::Result<HashMap<Key, Reported>> {
    let everything = ListParams::default();
    let api = Api::<Revision>::all(client.clone());
    let Ok(revisions) = time::timeout(ANSWER, api.list(&everything)).await else {
        return Err(kube::Error::Service("the API does not answer".into()));
    };
    let mut reported = HashMap::new();
    for revision in revisions? {
        let Some(load) = revision.status.as_ref().and_then(|s| s.load.as_ref()) else { continue };
        let requests = Requests { waiting: load.waiting, in_flight: load.in_flight, last: None };
        if !requests.is_idle() {
            let key = Key { namespace: revision.namespace().unwrap_or_default(), name: revision.name_any() };
            reported.insert(key, Reported { requests, at: time::now(), is_written: true });
        }
    }
    Ok(reported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_reported_at_once_and_the_end_a_little_later() {
        let now = time::now();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let one = Requests { waiting: 1, in_flight: 0, last: at(1) };
        let none = Requests { waiting: 0, in_flight: 0, last: at(2) };
        let later = Requests { last: at(3), ..none };
        let written = |requests| Some(Reported { requests, at: now, is_written: true });
        let cases = [
            ("the first", None, one, now, Due::Now),
            ("one that ended before it was seen", None, none, now, Due::Now),
            ("the end, at first", written(one), none, now, Due::At(now + SETTLE)),
            ("the end, settled", written(one), none, now + SETTLE, Due::Now),
            ("busy again", written(none), one, now, Due::Now),
            ("no change", written(one), one, now + SETTLE, Due::Never),
            ("another that ended before it was seen", written(none), later, now, Due::At(now + SETTLE)),
            (
                "not written, just now",
                Some(Reported { requests: none, at: now, is_written: false }),
                none,
                now,
                Due::At(now + RETRY),
            ),
            ("not written", Some(Reported { requests: none, at: now, is_written: false }), none, now + RETRY, Due::Now),
        ];
        for (name, before, requests, when, want) in cases {
            assert_eq!(due(before, requests, when), want, "{name}");
        }
    }
}
