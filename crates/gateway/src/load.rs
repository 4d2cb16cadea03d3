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

/// How long a change that is not urgent waits. Too low makes every request a durable write; too high makes the
/// autoscaler slow.
const SETTLE: Duration = Duration::from_secs(1);

/// What was last said of a revision.
#[derive(Clone, Copy)]
struct Said {
    requests: Requests,
    at: Instant,
}

/// Reports until the process ends.
pub async fn report(client: Client, table: Arc<Table>) {
    let mut said: HashMap<Key, Said> = HashMap::new();
    while let Err(error) = forget_earlier_life(&client).await {
        tracing::warn!(%error, "cannot read revisions, will be tried again");
        tokio::time::sleep(SETTLE).await;
    }
    loop {
        let mut look_again: Option<Instant> = None;
        for (revision, requests) in table.requests() {
            let before = said.get(&revision).copied();
            match due(before, requests, Instant::now()) {
                Due::Now => {
                    let ok = write(&client, &revision, requests).await;
                    said.insert(revision, Said { requests: if ok { requests } else { Requests::default() }, at: Instant::now() });
                    if !ok {
                        look_again = Some(Instant::now() + SETTLE);
                    }
                }
                Due::At(when) => look_again = Some(look_again.map_or(when, |soonest: Instant| soonest.min(when))),
                Due::Never => {}
            }
        }
        match look_again {
            Some(when) => tokio::select! {
                () = table.load_changed.notified() => {}
                () = tokio::time::sleep_until(when) => {}
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
    let idle = |r: Requests| r.waiting + r.in_flight == 0;
    match before {
        None if idle(requests) => Due::Never,
        None => Due::Now,
        Some(said) if said.requests == requests => Due::Never,
        Some(said) if idle(said.requests) && !idle(requests) => Due::Now,
        Some(said) if now >= said.at + SETTLE => Due::Now,
        Some(said) => Due::At(said.at + SETTLE),
    }
}

/// Says it; a revision that is gone needs nothing said.
async fn write(client: &Client, revision: &Key, requests: Requests) -> bool {
    let load = Load { waiting: requests.waiting, in_flight: requests.in_flight, last_request_time: Some(Time(Timestamp::now())) };
    let api = Api::<Revision>::namespaced(client.clone(), &revision.namespace);
    let patch = json!({"status": {"load": load}});
    match api.patch_status(&revision.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 404 => true,
        Err(error) => {
            tracing::warn!(revision = revision.name, %error, "cannot report load, will be tried again");
            false
        }
    }
}

/// Requests that an earlier life of the gateway reported are gone with it.
async fn forget_earlier_life(client: &Client) -> kube::Result<()> {
    let revisions = Api::<Revision>::all(client.clone()).list(&ListParams::default()).await?;
    for revision in revisions {
        let busy = revision.status.as_ref().and_then(|s| s.load.as_ref()).is_some_and(|l| l.waiting + l.in_flight > 0);
        if busy {
            let key = Key { namespace: revision.namespace().unwrap_or_default(), name: revision.name_any() };
            write(client, &key, Requests::default()).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_is_said_at_once_and_the_end_a_little_later() {
        let now = Instant::now();
        let one = Requests { waiting: 1, in_flight: 0 };
        let none = Requests::default();
        assert_eq!(due(None, one, now), Due::Now);
        assert_eq!(due(None, none, now), Due::Never);
        assert_eq!(due(Some(Said { requests: one, at: now }), none, now), Due::At(now + SETTLE));
        assert_eq!(due(Some(Said { requests: one, at: now }), none, now + SETTLE), Due::Now);
        assert_eq!(due(Some(Said { requests: none, at: now }), one, now), Due::Now);
        assert_eq!(due(Some(Said { requests: one, at: now }), one, now + SETTLE), Due::Never);
    }
}
