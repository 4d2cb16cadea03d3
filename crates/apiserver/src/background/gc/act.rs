//! The collector's requests, which go through the API like those of other clients.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::decide::Action;
use crate::background::send::{expect, path_of, send};
use crate::http::server::IdentityService;
use crate::object::registry::{Registered, Registry};
use crate::state::cache::relations::Place;

/// Attempts in case of concurrent writes.
const ATTEMPTS: usize = 5;

/// Carries out decisions.
pub(crate) struct Actor {
    service: IdentityService,
    registry: Arc<Registry>,
}

impl Actor {
    pub(crate) fn new(service: IdentityService, registry: Arc<Registry>) -> Self {
        Actor { service, registry }
    }

    /// Carries out one action. A concurrent change is not an error, because it queues the object again.
    pub(super) async fn act(&self, action: &Action) -> Result<(), String> {
        match action {
            Action::Delete { place, uid, is_foreground } => {
                let policy = if *is_foreground { "Foreground" } else { "Background" };
                let mut options = json!({"preconditions": {"uid": uid}});
                // Without a policy the object's finalizers decide.
                if *is_foreground {
                    options["propagationPolicy"] = json!(policy);
                }
                let (code, body) = self.send(Method::DELETE, place, "", "application/json", &options).await?;
                expect(code, &body, &[StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::CONFLICT])
            }
            Action::RemoveOwners { place, uid, owners } => {
                self.edit(place, uid, |metadata| {
                    let references = metadata.get("ownerReferences")?.as_array()?;
                    let is_kept = |it: &&Value| !owners.iter().any(|uid| it["uid"] == uid.as_str());
                    let kept: Vec<Value> = references.iter().filter(is_kept).cloned().collect();
                    (kept.len() < references.len()).then(|| json!({"ownerReferences": kept}))
                })
                .await
            }
            Action::RemoveFinalizer { place, uid, finalizer } => {
                self.edit(place, uid, |metadata| {
                    let finalizers = metadata.get("finalizers")?.as_array()?;
                    let kept: Vec<Value> = finalizers.iter().filter(|it| *it != finalizer).cloned().collect();
                    (kept.len() < finalizers.len()).then(|| json!({"finalizers": kept}))
                })
                .await
            }
        }
    }

    /// Patches metadata by a function of it, if the uid is unchanged.
    async fn edit(&self, place: &Place, uid: &str, change: impl Fn(&Value) -> Option<Value>) -> Result<(), String> {
        for _ in 0..ATTEMPTS {
            let (code, object) = self.send(Method::GET, place, "", "application/json", &Value::Null).await?;
            if code == StatusCode::NOT_FOUND {
                return Ok(());
            }
            expect(code, &object, &[StatusCode::OK])?;
            let metadata = &object["metadata"];
            if metadata["uid"] != uid {
                return Ok(());
            }
            let Some(mut patch) = change(metadata) else { return Ok(()) };
            patch["resourceVersion"] = metadata["resourceVersion"].clone();
            patch["uid"] = json!(uid);
            let patch = json!({"metadata": patch});
            let (code, answer) = self.send(Method::PATCH, place, "", "application/merge-patch+json", &patch).await?;
            if code == StatusCode::CONFLICT {
                continue;
            }
            return expect(code, &answer, &[StatusCode::OK, StatusCode::NOT_FOUND]);
        }
        Err("others were faster every time".into())
    }

    async fn send(
        &self,
        method: Method,
        place: &Place,
        subresource: &str,
        media_type: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value), String> {
        let registered = self.find(place).ok_or_else(|| format!("{} is not registered", place.storage.resource))?;
        let path = path_of(registered, place.key.namespace(), place.key.name(), subresource);
        send(&self.service, method, &path, media_type, body).await
    }

    fn find(&self, place: &Place) -> Option<&Arc<Registered>> {
        self.registry.stored().find(|it| it.storage == place.storage)
    }
}
