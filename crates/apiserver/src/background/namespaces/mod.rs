//! The life-cycle of namespaces: deletes the contents of a namespace that is being deleted, then removes its finalizer.
//!
//! ```text
//!   Active ──delete──► Terminating: all objects are deleted ──► wait for their finalizers ──► empty: finalized, removed
//! ```
//! While it waits, conditions on the namespace name the kinds that remain and the finalizers that they wait for. New objects are
//! refused as part of their own transaction, so that an empty namespace stays empty.

mod status;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::background::measured::Measured;
use crate::background::send::{expect, path_of, send};
use crate::http::server::{ApiServer, IdentityService};
use crate::object::identity::Identity;
use crate::object::registry::{GroupResource, Registered};
use crate::state::cache::Cache;

/// The delay before a failed deletion of a namespace is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the task, which ends with the server. Does nothing if namespaces are not registered.
pub(crate) fn start(server: &ApiServer) {
    let Some(namespaces) = server.shared.registry.find("", "v1", "namespaces").cloned() else { return };
    let stored = server.shared.registry.stored().filter(|it| it.kind.is_namespaced()).cloned().collect();
    let controller = Controller {
        cache: server.shared.cache.clone(),
        service: server.service_as(Identity::controller("namespaces")),
        namespaces,
        stored,
        measured: Measured::of("namespaces"),
    };
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
    namespaces: Arc<Registered>,
    stored: Vec<Arc<Registered>>,
    measured: Measured<String>,
}

impl Controller {
    fn storage(&self) -> &GroupResource {
        &self.namespaces.storage
    }

    async fn run(self) {
        let mut notices = self.cache.notices();
        let mut terminating = self.find_terminating();
        let mut due = terminating.clone();
        loop {
            due.iter().cloned().for_each(|name| self.measured.wake(name));
            for name in due.drain() {
                match self.measured.run(&name, &name, self.look(&name)).await {
                    Ok(true) => {
                        terminating.remove(&name);
                    }
                    Ok(false) => {}
                    Err(problem) => {
                        tracing::warn!(%problem, namespace = %name, "deleting the contents of a namespace failed, trying again")
                    }
                }
            }
            tokio::select! {
                notice = notices.recv() => match notice {
                    Ok(notice) => {
                        let Some(subject) = notice.change.subject() else { continue };
                        if notice.registered.storage == *self.storage() {
                            if notice.change.current.as_ref().is_some_and(|it| it.is_deleting) {
                                terminating.insert(subject.key.name().to_owned());
                                due.insert(subject.key.name().to_owned());
                            }
                        } else if terminating.contains(subject.key.namespace()) {
                            due.insert(subject.key.namespace().to_owned());
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        terminating = self.find_terminating();
                        due = terminating.clone();
                    }
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep(RETRY), if !terminating.is_empty() => due = terminating.clone(),
            }
        }
    }

    fn find_terminating(&self) -> HashSet<String> {
        let found = self.cache.kind(self.storage()).select(|it| it.is_deleting);
        found.iter().map(|it| it.key.name().to_owned()).collect()
    }

    /// Reconciles one namespace; returns whether it is deleted.
    async fn look(&self, name: &str) -> Result<bool, String> {
        let Some(namespace) = self.cache.kind(self.storage()).get(name) else { return Ok(true) };
        if !namespace.is_deleting {
            return Ok(true);
        }
        // Delete the objects that are not being deleted yet.
        for registered in &self.stored {
            let kind = self.cache.kind(&registered.storage);
            if kind.has_undeleted_in(name) {
                let path = path_of(registered, name, "", "");
                let options = json!({"propagationPolicy": "Background"});
                let (code, answer) = send(&self.service, Method::DELETE, &path, "application/json", &options).await?;
                expect(code, &answer, &[StatusCode::OK])?;
            }
        }
        self.cache.catch_up().await.map_err(|error| error.to_string())?;
        let remaining: Vec<status::Remaining> = self
            .stored
            .iter()
            .map(|registered| {
                let kind = self.cache.kind(&registered.storage);
                status::Remaining {
                    kind: registered.kind.qualified_plural(),
                    count: kind.count_in(name),
                    finalizers: kind.finalizers_in(name),
                }
            })
            .filter(|it| it.count > 0)
            .collect();
        let (code, current) = self.request(Method::GET, name, "", &Value::Null).await?;
        if code == StatusCode::NOT_FOUND {
            return Ok(true);
        }
        expect(code, &current, &[StatusCode::OK])?;
        if !remaining.is_empty() {
            self.report(name, current, &remaining).await?;
            return Ok(false);
        }
        let mut finalized = current;
        finalized["spec"] = json!({});
        let (code, answer) = self.request(Method::PUT, name, "finalize", &finalized).await?;
        expect(code, &answer, &[StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::CONFLICT])?;
        Ok(code != StatusCode::CONFLICT)
    }

    async fn report(&self, name: &str, mut current: Value, remaining: &[status::Remaining]) -> Result<(), String> {
        let now = crate::object::time::time_text(jiff::Timestamp::now());
        let conditions = status::conditions(current.pointer("/status/conditions"), remaining, &now);
        if current.pointer("/status/conditions") == Some(&conditions) {
            return Ok(());
        }
        current["status"]["conditions"] = conditions;
        current["status"]["phase"] = json!("Terminating");
        let (code, answer) = self.request(Method::PUT, name, "status", &current).await?;
        expect(code, &answer, &[StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::CONFLICT])
    }

    async fn request(
        &self,
        method: Method,
        name: &str,
        subresource: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value), String> {
        let path = path_of(&self.namespaces, "", name, subresource);
        send(&self.service, method, &path, "application/json", body).await
    }
}
