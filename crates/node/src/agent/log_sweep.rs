//! Removes kept logs with their service.

use std::collections::HashSet;

use evroc_api::run::Service;
use evroc_controller::Context;
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};

use super::service_log::ServiceLogs;

/// Removes the logs of deleted services, also of those that were deleted while this did not run. Runs until the process ends.
pub async fn run(context: Context, logs: ServiceLogs) {
    let key = |service: &Service| (service.namespace().unwrap_or_default(), service.name_any());
    let mut present = HashSet::new();
    let all = watcher::Config::default();
    let mut events = watcher(Api::<Service>::all(context.client), all).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let deleted = match event {
            Ok(watcher::Event::Init) => {
                present.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(service)) => {
                present.insert(key(&service));
                continue;
            }
            Ok(watcher::Event::InitDone) => match logs.services() {
                Ok(kept) => kept.into_iter().filter(|service| !present.contains(service)).collect(),
                Err(error) => {
                    tracing::warn!(%error, "list kept logs");
                    continue;
                }
            },
            Ok(watcher::Event::Delete(service)) => vec![key(&service)],
            Ok(watcher::Event::Apply(_)) | Err(_) => continue,
        };
        for (namespace, service) in deleted {
            if let Err(error) = logs.forget(&namespace, &service) {
                tracing::warn!(namespace, service, %error, "remove the logs of a deleted service");
            }
        }
    }
}
