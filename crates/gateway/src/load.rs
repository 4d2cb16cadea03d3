//! What the gateway says of a revision's requests: at once when the first one comes, a little later when they ended, and
//! now and then while their number changes. The autoscaler decides from it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::run::{Load, Revision};
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
/// How long after a report that was not heard it is tried again: a request at zero waits for it.
const RETRY: Duration = Duration::from_millis(250);
/// The longest that the API may take for one report.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an idle revision is remembered. Too low writes more often for one that is asked now and then.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What was last said of a revision.
#[derive(Clone, Copy)]
struct Said {
    requests: Requests,
    at: Instant,
    heard: bool,
}

/// Reports until the process ends.
pub async fn report(client: Client, table: Arc<Table>) {
    let mut said = loop {
        match earlier_life(&client).await {
            Ok(said) => break said,
            Err(error) => tracing::warn!(%error, "cannot read revisions, will be tried again"),
        }
        time::sleep(RETRY).await;
    };
    loop {
        let mut current = table.requests();
        // What an earlier life said is not so any more.
        for revision in said.keys() {
            current.entry(revision.clone()).or_default();
        }
        let mut look_again: Option<Instant> = None;
        for (revision, requests) in current {
            let before = said.get(&revision).copied();
            let next = match due(before, requests, time::now()) {
                Due::Now => {
                    let heard = write(&client, &revision, requests).await;
                    let now = time::now();
                    said.insert(revision, Said { requests, at: now, heard });
                    if heard { None } else { Some(now + RETRY) }
                }
                Due::At(when) => Some(when),
                Due::Never => {
                    if before.is_some_and(|said| requests.is_idle() && said.at + REMEMBERED <= time::now()) {
                        said.remove(&revision);
                        table.forget_requests(&revision, requests);
                    }
                    None
                }
            };
            look_again = [look_again, next].into_iter().flatten().min();
        }
        match look_again {
            Some(when) => tokio::select! {
                () = table.load_changed.notified() => {}
                () = time::sleep_until(when) => {}
            },
            None => table.load_changed.notified().await,
        }
    }
}

/// When something is to be said.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Now,
    At(Instant),
    Never,
}

fn due(before: Option<Said>, requests: Requests, now: Instant) -> Due {
    let at = |when| if now >= when { Due::Now } else { Due::At(when) };
    match before {
        None => Due::Now,
        Some(said) if !said.heard => at(said.at + RETRY),
        Some(said) if said.requests == requests => Due::Never,
        Some(said) if said.requests.is_idle() && !requests.is_idle() => Due::Now,
        Some(said) => at(said.at + SETTLE),
    }
}

/// Says it; a revision that is gone needs nothing said.
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

/// Requests that an earlier life of the gateway reported are gone with it: as if they had been said just now.
async fn earlier_life(client: &Client) -> kube::Result<HashMap<Key, Said>> {
    let everything = ListParams::default();
    let api = Api::<Revision>::all(client.clone());
    let Ok(revisions) = time::timeout(ANSWER, api.list(&everything)).await else {
        return Err(kube::Error::Service("the API does not answer".into()));
    };
    let mut said = HashMap::new();
    for revision in revisions? {
        let Some(load) = revision.status.as_ref().and_then(|s| s.load.as_ref()) else { continue };
        let requests = Requests { waiting: load.waiting, in_flight: load.in_flight, last: None };
        if !requests.is_idle() {
            let key = Key { namespace: revision.namespace().unwrap_or_default(), name: revision.name_any() };
            said.insert(key, Said { requests, at: time::now(), heard: true });
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_said_at_once_and_the_end_a_little_later() {
        let now = time::now();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let one = Requests { waiting: 1, in_flight: 0, last: at(1) };
        let none = Requests { waiting: 0, in_flight: 0, last: at(2) };
        let later = Requests { last: at(3), ..none };
        let said = |requests| Some(Said { requests, at: now, heard: true });
        let cases = [
            ("the first", None, one, now, Due::Now),
            ("one that ended before it was seen", None, none, now, Due::Now),
            ("the end, at first", said(one), none, now, Due::At(now + SETTLE)),
            ("the end, settled", said(one), none, now + SETTLE, Due::Now),
            ("busy again", said(none), one, now, Due::Now),
            ("no change", said(one), one, now + SETTLE, Due::Never),
            ("another that ended before it was seen", said(none), later, now, Due::At(now + SETTLE)),
            (
                "not heard, just now",
                Some(Said { requests: none, at: now, heard: false }),
                none,
                now,
                Due::At(now + RETRY),
            ),
            ("not heard", Some(Said { requests: none, at: now, heard: false }), none, now + RETRY, Due::Now),
        ];
        for (name, before, requests, when, want) in cases {
            assert_eq!(due(before, requests, when), want, "{name}");
        }
    }
}
