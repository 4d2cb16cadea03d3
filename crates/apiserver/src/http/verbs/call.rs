//! One authorised request, as every verb gets it.

use std::sync::Arc;

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

    /// The object in the path.
    pub(crate) fn key(&self) -> ObjectKey {
        self.key_of(&self.info.name)
    }

    /// An object of this kind in the namespace of the path.
    pub(crate) fn key_of(&self, name: &str) -> ObjectKey {
        if self.registered.kind.is_namespaced() {
            ObjectKey::new(&self.info.namespace, name)
        } else {
            ObjectKey::new("", name)
        }
    }

    /// Names for messages about an object of this kind.
    pub(crate) fn named<'a>(&'a self, name: &'a str) -> Named<'a> {
        Named { group: &self.registered.kind.group, resource: &self.registered.kind.plural, name }
    }

    /// Names for messages about an invalid object.
    pub(crate) fn named_kind<'a>(&'a self, name: &'a str) -> Named<'a> {
        Named { group: &self.registered.kind.group, resource: &self.registered.kind.kind, name }
    }

    /// An object that the client has sent, with the server's names in place of a view's.
    pub(crate) fn take_in(&self, object: &mut Value) {
        if let Some(view) = &self.info.view {
            view.take_in(object, self.registered.kind.namespace_references);
        }
    }

    /// An object as the client is shown it: with a view's names.
    pub(crate) fn show(&self, object: &mut Value) {
        if let Some(view) = &self.info.view {
            view.show(object, self.registered.kind.namespace_references);
        }
    }

    /// Whether the view, if it is one, shows an object of this kind.
    pub(crate) fn is_shown(&self, object: &CachedObject) -> bool {
        self.info.narrowed.as_ref().is_none_or(|it| object.field(&self.registered, &it.field) == it.value)
    }

    /// An answer of one object, given as it is stored.
    pub(crate) fn answer(&self, code: StatusCode, wire: Bytes) -> Result<Response<ResponseBody>, ApiError> {
        let wire = match &self.info.view {
            None => wire,
            Some(view) => view.show_bytes(&wire, self.registered.kind.namespace_references),
        };
        shape::object(&self.registered, self.accepted, &self.query, code, wire)
    }

    /// RFC 3339 with whole seconds, as in metadata.
    pub(crate) fn time_text(&self) -> String {
        time_text(self.now)
    }

    /// Who is recorded in `managedFields`.
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
