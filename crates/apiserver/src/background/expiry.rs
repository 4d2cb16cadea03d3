//! Deletes objects of kinds with a lifetime when they have not been written for that long.
//!
//! The time of a write is the time when this process saw it; for objects that exist at the start, it is the start. So an object
//! lives at least its lifetime, and clocks of other machines do not matter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use evroc_metrics::controllers::Reconciliations;
use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use crate::background::measured;
use crate::background::send::{expect, path_of, send};
use crate::http::server::{ApiServer, IdentityService};
use crate::object::identity::Identity;
use crate::object::registry::Registered;
use crate::state::cache::Cache;

/// The interval between checks. Objects outlive their lifetime by at most this.
const INTERVAL: Duration = Duration::from_secs(60);

/// Starts the task, which ends with the server.
pub(crate) fn start(server: &ApiServer) {
    let kinds: Vec<Arc<Registered>> =
        server.shared.registry.stored().filter(|it| it.kind.lifetime.is_some()).cloned().collect();
    if kinds.is_empty() {
        return;
    }
    let mut sweeper = Sweeper {
        cache: server.shared.cache.clone(),
        service: server.service_as(Identity::controller("expiry")),
        kinds,
        seen: HashMap::new(),
    };
    let stopping = server.shared.stopping.clone();
    tokio::spawn(async move {
        let runs = Reconciliations::of("expiry".into());
        loop {
            // What failed is in the log, and is tried again with the next sweep.
            let _ = measured::run(&runs, "all", sweeper.sweep(Instant::now())).await;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = stopping.cancelled() => return,
            }
        }
    });
}

struct Sweeper {
    cache: Arc<Cache>,
    service: IdentityService,
    kinds: Vec<Arc<Registered>>,
    /// When each object's newest revision was first seen. A write gives an object a new revision, so the revision alone identifies it.
    seen: HashMap<u64, Instant>,
}

impl Sweeper {
    /// Deletes what has expired; the error is the last of those that were met.
    async fn sweep(&mut self, now: Instant) -> Result<(), String> {
        let mut outcome = Ok(());
        let mut remaining = HashMap::new();
        for registered in &self.kinds {
            let Some(lifetime) = registered.kind.lifetime else { continue };
            for object in self.cache.kind(&registered.storage).select(|_| true) {
                let since = self.seen.get(&object.revision).copied().unwrap_or(now);
                if now.duration_since(since) < lifetime {
                    remaining.insert(object.revision, since);
                    continue;
                }
                let path = path_of(registered, object.key.namespace(), object.key.name(), "");
                // A concurrent write keeps the object alive.
                let options = json!({"preconditions": {"resourceVersion": object.revision.to_string()}});
                let expected = [StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::CONFLICT];
                let deleted = match send(&self.service, Method::DELETE, &path, "application/json", &options).await {
                    Ok((code, answer)) => expect(code, &answer, &expected),
                    Err(problem) => Err(problem),
                };
                if let Err(problem) = deleted {
                    tracing::warn!(%problem, %path, "deleting an expired object failed");
                    remaining.insert(object.revision, since);
                    outcome = Err(problem);
                }
            }
        }
        self.seen = remaining;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evroc_store::EmbeddedStore;
    use serde_json::json;

    use super::*;
    use crate::http::authz::GroupAuthorizer;

    #[tokio::test]
    async fn events_end_when_they_were_not_written_for_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(dir.path()).await.unwrap());
        let authorizer = Arc::new(GroupAuthorizer { unlimited: vec!["system:controllers".into()] });
        let server = ApiServer::builder(store).authorizer(authorizer).without_controllers().start().await.unwrap();
        let service = server.service_as(Identity::controller("test"));
        let post = async |path: &str, body: serde_json::Value| {
            let (code, answer) = send(&service, Method::POST, path, "application/json", &body).await.unwrap();
            assert_eq!(code, 201, "{answer}");
        };
        let path = "/api/v1/namespaces/demo/events";
        post("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}))
            .await;
        post(path, json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "old"}})).await;
        server.shared.cache.catch_up().await.unwrap();
        let kinds = server.shared.registry.stored().filter(|it| it.kind.lifetime.is_some()).cloned().collect();
        let mut sweeper = Sweeper {
            cache: server.shared.cache.clone(),
            service: server.service_as(Identity::controller("expiry")),
            kinds,
            seen: HashMap::new(),
        };
        let start = Instant::now();
        let minutes = |count: u64| start + Duration::from_secs(60 * count);
        let left = async |sweeper: &mut Sweeper, at| {
            sweeper.sweep(at).await.unwrap();
            server.shared.cache.catch_up().await.unwrap();
            server.shared.cache.kind(&sweeper.kinds[0].storage).select(|_| true).len()
        };
        assert_eq!(left(&mut sweeper, minutes(0)).await, 1);
        assert_eq!(left(&mut sweeper, minutes(59)).await, 1);
        let patch = json!({"message": "again"});
        send(&service, Method::PATCH, &format!("{path}/old"), "application/merge-patch+json", &patch).await.unwrap();
        server.shared.cache.catch_up().await.unwrap();
        assert_eq!(left(&mut sweeper, minutes(61)).await, 1, "it was written meanwhile");
        assert_eq!(left(&mut sweeper, minutes(122)).await, 0);
    }
}
