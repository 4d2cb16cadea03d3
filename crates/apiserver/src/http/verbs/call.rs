//! One authorised request, the input of every verb.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use crate::http::request::negotiate::Accepted;
use crate::http::request::{Query, RequestInfo};
use crate::http::respond::shape;
use crate::http::server::shared::Shared;
use crate::object::body::ResponseBody;
use crate::object::error::{ApiError, Named};
use crate::object::identity::Identity;
use crate::object::registry::Registered;
use crate::object::time::time_text;
use crate::state::cache::object::CachedObject;
use crate::state::storage::keys::ObjectKey;

/// One authorised request for a registered kind.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registered: Arc<Registered>,
    pub(crate) identity: Identity,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) accepted: Accepted,
    pub(crate) body: Bytes,
    pub(crate) warnings: Vec<String>,
    pub(crate) now: Timestamp,
}

impl Call {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Returns the key of the object in the path.
    pub(crate) fn key(&self) -> ObjectKey {
        self.key_of(&self.info.name)
    }

    /// Returns the key of an object of this kind in the namespace of the path.
    pub(crate) fn key_of(&self, name: &str) -> ObjectKey {
        if self.registered.kind.is_namespaced() {
            ObjectKey::new(&self.info.namespace, name)
        } else {
            ObjectKey::new("", name)
        }
    }

    /// Returns the names for messages about an object of this kind.
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> Named<'a> {
        Named { group: &self.registered.kind.group, resource: &self.registered.kind.plural, name }
    }

    /// Returns the names for messages about an invalid object.
    pub(crate) fn named_kind<'a>(&'a self, name: &'a str) -> Named<'a> {
        Named { group: &self.registered.kind.group, resource: &self.registered.kind.kind, name }
    }

    /// Translates an object from the client: replaces a view's names by the server's.
    pub(crate) fn take_in(&self, object: &mut Value) {
        if let Some(view) = &self.info.view {
            view.take_in(object, self.registered.kind.namespace_references);
        }
    }

    /// Translates an object for the client: replaces the server's names by a view's.
    pub(crate) fn show(&self, object: &mut Value) {
        if let Some(view) = &self.info.view {
            view.show(object, self.registered.kind.namespace_references);
        }
    }

    /// Whether the request's view, if any, shows an object of this kind.
    pub(crate) fn is_shown(&self, object: &CachedObject) -> bool {
        self.info.filter.as_ref().is_none_or(|it| object.field(&self.registered, &it.field) == it.value)
    }

    /// Returns the response with one object, given in its stored form.
    pub(crate) fn answer(&self, code: StatusCode, wire: Bytes) -> Result<Response<ResponseBody>, ApiError> {
        let wire = match &self.info.view {
            None => wire,
            Some(view) => view.show_bytes(&wire, self.registered.kind.namespace_references),
        };
        shape::object(&self.registered, self.accepted, &self.query, code, wire)
    }

    /// How long the caller's credential is still good: streams end with it.
    pub(crate) fn rest_of_credential(&self) -> Duration {
        rest_of(&self.identity, self.now)
    }

    /// Returns the time of the request as in metadata: RFC 3339 with whole seconds.
    pub(crate) fn time_text(&self) -> String {
        time_text(self.now)
    }

    /// Returns the manager to record in `managedFields`.
    pub(crate) fn manager(&self) -> String {
        match self.query.text("fieldManager") {
            Some(manager) => manager.to_owned(),
            None => {
                let agent = self.headers.get(http::header::USER_AGENT).and_then(|it| it.to_str().ok());
                let manager = crate::object::apply::default_manager(agent.unwrap_or_default());
                if manager.is_empty() { "unknown".into() } else { manager }
            }
        }
    }
}

/// How long a caller's credential is still good.
pub(crate) fn rest_of(identity: &Identity, now: Timestamp) -> Duration {
    identity.expires.map_or(Duration::MAX, |end| Duration::try_from(end.duration_since(now)).unwrap_or_default())
}
