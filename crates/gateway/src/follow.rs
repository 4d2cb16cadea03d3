//! Keeping the table true: services and replicas are watched.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::GATEWAY_FINALIZER;
use evroc_api::conditions::{self, READY};
use evroc_api::infra;
use evroc_api::run::{REVISION_LABEL, Service};
use futures::StreamExt;
use kube::api::Api;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::metrics::Metrics;
use crate::table::{Key, Replica, Route, Routed, Table};
use crate::time;

/// The first pause between tries while the API does not answer: short, because requests at zero wait for what the watch brings.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// Follows services until the process ends.
pub(crate) async fn services(client: Client, table: Arc<Table>, metrics: Arc<Metrics>) {
    let mut hosts: HashMap<Key, String> = HashMap::new();
    let complete = table.clone();
    let change = move |key: Key, service: Option<Service>| {
        let host = service.as_ref().and_then(host_of);
        if let Some(old) = hosts.remove(&key).filter(|old| Some(old) != host.as_ref()) {
            table.set_route(&old, None);
        }
        if service.is_none() {
            metrics.forget(&key.namespace, &key.name);
        }
        if let (Some(host), Some(service)) = (host, service) {
            let routed =
                Routed { route: route(&key, &service), service: Some(metrics.service(&key.namespace, &key.name)) };
            table.set(&host, Some(routed));
            hosts.insert(key, host);
        }
    };
    follow(Api::<Service>::all(client), change, || complete.set_complete()).await;
}

/// Follows replicas until the process ends.
pub async fn replicas(client: Client, table: Arc<Table>) {
    let removed = |key: &Key| {
        if let Some(uid) = table.replica_uid(key) {
            table.remove_replica(key, &uid);
        }
    };
    let change = |key: Key, replica: Option<infra::Replica>| match replica {
        // One that has been let go only waits for its host.
        Some(object) if object.metadata.deletion_timestamp.is_some() && !is_held(&object) => removed(&key),
        Some(object) => table.set_replica(replica_of(key, &object)),
        None => removed(&key),
    };
    follow(Api::<infra::Replica>::all(client), change, || ()).await;
}

fn is_held(replica: &infra::Replica) -> bool {
    replica.finalizers().iter().any(|f| f == GATEWAY_FINALIZER)
}

fn host_of(service: &Service) -> Option<String> {
    let url: http::Uri = service.status.as_ref()?.url.as_ref()?.parse().ok()?;
    url.host().map(str::to_ascii_lowercase)
}

fn route(key: &Key, service: &Service) -> Route {
    let status = service.status.as_ref();
    let target = status.and_then(|s| s.traffic.first());
    match target {
        Some(target) => Route::To(Key { namespace: key.namespace.clone(), name: target.revision_name.clone() }),
        None => {
            let why = status.and_then(|s| conditions::get(&s.conditions, READY));
            Route::NotReady(why.map_or_else(|| "it is being deployed".into(), |c| c.message.clone()))
        }
    }
}

fn replica_of(key: Key, object: &infra::Replica) -> Replica {
    let revision = object.labels().get(REVISION_LABEL).cloned().unwrap_or_else(|| object.spec.revision.clone());
    Replica {
        uid: object.uid().unwrap_or_default(),
        revision: Key { namespace: key.namespace.clone(), name: revision },
        port: u16::try_from(object.spec.port).unwrap_or(0),
        ready: object.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, READY)),
        draining: object.metadata.deletion_timestamp.is_some(),
        key,
    }
}

/// Calls `change` for every object that appears, changes or (with `None`) goes, also for those that went while the watch
/// was interrupted; and `complete` when all that there were have been seen.
async fn follow<K>(api: Api<K>, mut change: impl FnMut(Key, Option<K>), complete: impl Fn())
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let key = |object: &K| Key { namespace: object.namespace().unwrap_or_default(), name: object.name_any() };
    let mut known: HashMap<Key, bool> = HashMap::new();
    let mut events = watcher(api, watcher::Config::default()).boxed();
    let mut failures: u32 = 0;
    while let Some(event) = events.next().await {
        failures = if event.is_ok() { 0 } else { failures + 1 };
        match event {
            Ok(watcher::Event::Init) => known.values_mut().for_each(|seen| *seen = false),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                known.insert(key(&object), true);
                change(key(&object), Some(object));
            }
            Ok(watcher::Event::InitDone) => {
                let removed: Vec<Key> = known.iter().filter(|(_, seen)| !**seen).map(|(key, _)| key.clone()).collect();
                for key in removed {
                    known.remove(&key);
                    change(key, None);
                }
                complete();
            }
            Ok(watcher::Event::Delete(object)) => {
                known.remove(&key(&object));
                change(key(&object), None);
            }
            Err(error) => {
                tracing::debug!(%error, failures, "watch interrupted");
                time::sleep(FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE)).await;
            }
        }
    }
}
