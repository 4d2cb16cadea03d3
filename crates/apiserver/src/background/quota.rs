//! Writes how much of each quota is used.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::measured::Measured;
use super::send::{expect, path_of, send};
use crate::http::server::{ApiServer, IdentityService};
use crate::object::identity::Identity;
use crate::object::registry::Registered;
use crate::state::cache::object::CachedObject;
use crate::state::cache::{Cache, Notice};
use crate::state::ledgers;
use crate::state::quota::{TAKEN, limit, names_of, storage};

/// The delay before a failed write of a quota's status is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the task, which ends with the server. Does nothing if quotas are not registered.
pub(crate) fn start(server: &ApiServer) {
    let Some(quotas) = server.shared.registry.find("", "v1", "resourcequotas").cloned() else { return };
    let cache = server.shared.cache.clone();
    let service = server.service_as(Identity::controller("quota"));
    let controller = Controller { cache, service, quotas, measured: Measured::of("quota") };
    let stopping = server.shared.stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = controller.run() => {}
            () = stopping.cancelled() => {}
        }
    });
}

struct Controller {
    cache: Arc<Cache>,
    service: IdentityService,
    quotas: Arc<Registered>,
    measured: Measured<String>,
}

impl Controller {
    async fn run(self) {
        let mut notices = self.cache.notices();
        let mut due = self.all();
        loop {
            let mut failed = BTreeSet::new();
            due.iter().cloned().for_each(|namespace| self.measured.wake(namespace));
            for namespace in std::mem::take(&mut due) {
                if let Err(problem) = self.measured.run(&namespace, &namespace, self.look(&namespace)).await {
                    tracing::warn!(%problem, %namespace, "writing the status of a quota failed, trying again");
                    failed.insert(namespace);
                }
            }
            tokio::select! {
                notice = notices.recv() => match notice {
                    Ok(notice) => self.concerns(&notice, &mut due),
                    Err(RecvError::Lagged(_)) => due = self.all(),
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep(RETRY), if !failed.is_empty() => {}
            }
            // Handles a burst of changes together.
            loop {
                match notices.try_recv() {
                    Ok(notice) => self.concerns(&notice, &mut due),
                    Err(TryRecvError::Lagged(_)) => due = self.all(),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
            due.append(&mut failed);
        }
    }

    /// Returns all namespaces with quotas.
    fn all(&self) -> BTreeSet<String> {
        let quotas = self.cache.kind(&storage()).select(|_| true);
        quotas.iter().map(|quota| quota.key.namespace().to_owned()).collect()
    }

    /// Adds the namespace of a change that may have changed a count.
    fn concerns(&self, notice: &Notice, due: &mut BTreeSet<String>) {
        let Some(subject) = notice.change.subject() else { return };
        let takes = |object: Option<&Arc<CachedObject>>| object.map(|object| object.takes.clone());
        let (previous, current) = (notice.change.previous.as_ref(), notice.change.current.as_ref());
        let is_counted = previous.is_none() || current.is_none() || takes(previous) != takes(current);
        let is_quota = notice.registered.storage == storage();
        if is_quota || (is_counted && self.cache.kind(&storage()).count_in(subject.key.namespace()) > 0) {
            due.insert(subject.key.namespace().to_owned());
        }
    }

    async fn look(&self, namespace: &str) -> Result<(), String> {
        for quota in self.cache.kind(&storage()).in_namespace(namespace) {
            let mut object = quota.parse();
            let hard = object.pointer("/spec/hard").cloned().unwrap_or_else(|| json!({}));
            let mut used = Map::new();
            for (registered, kind) in self.cache.kinds() {
                for name in names_of(&registered.storage) {
                    if limit(&object, &name).is_some() {
                        used.insert(name, kind.count_in(namespace).to_string().into());
                    }
                }
            }
            for name in TAKEN.into_iter().filter(|name| limit(&object, name).is_some()) {
                let balance = self.cache.ledgers(|it| it.balance(&ledgers::of_namespace(namespace), name));
                used.insert(name.to_owned(), balance.taken.to_string().into());
            }
            used.sort_keys();
            let status = json!({"hard": hard, "used": used});
            if object.get("status") == Some(&status) {
                continue;
            }
            object["status"] = status;
            let path = path_of(&self.quotas, namespace, quota.key.name(), "status");
            let (code, answer) = self.put(&path, &object).await?;
            // After a conflict, the other write queues the quota again.
            expect(code, &answer, &[StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::CONFLICT])?;
        }
        Ok(())
    }

    async fn put(&self, path: &str, object: &Value) -> Result<(StatusCode, Value), String> {
        send(&self.service, Method::PUT, path, "application/json", object).await
    }
}
