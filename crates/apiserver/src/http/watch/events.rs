//! Encodes the events of a watch as lines.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::http::request::Query;
use crate::http::request::negotiate::Shape;
use crate::http::request::view::ViewNamespace;
use crate::http::respond::shape;
use crate::http::verbs::call::Call;
use crate::object::error::ApiError;
use crate::object::registry::Registered;
use crate::state::cache::change::{Change, EventType, event_line};
use crate::state::cache::object::CachedObject;

/// The encoding of the events of one watcher.
pub(super) struct Encoder {
    registered: Arc<Registered>,
    shape: Shape,
    view: Option<ViewNamespace>,
    query: Query,
    is_plain: bool,
    has_sent_columns: bool,
}

impl Encoder {
    pub(super) fn new(call: &Call, query: &Query) -> Result<Self, ApiError> {
        shape::include_object(query)?;
        let (registered, shape, view) = (call.registered.clone(), call.accepted.shape, call.info.view.clone());
        let is_plain = shape == Shape::Object && registered.kind.shared_storage.is_none();
        Ok(Encoder { registered, shape, view, query: query.clone(), is_plain, has_sent_columns: false })
    }

    /// Encodes an object of the initial state.
    pub(super) fn initial(&mut self, object: &CachedObject) -> Bytes {
        if self.is_plain {
            return self.plain(EventType::Added, &object.wire);
        }
        self.shaped(EventType::Added, &object.wire)
    }

    /// Encodes a change as an event of this type.
    pub(super) fn change(&mut self, change: &Change, event: EventType) -> Bytes {
        if self.is_plain {
            return match self.view {
                None => change.line(event),
                Some(_) => self.plain(event, &change.object(event)),
            };
        }
        self.shaped(event, &change.object(event))
    }

    fn plain(&self, event: EventType, wire: &Bytes) -> Bytes {
        match &self.view {
            None => event_line(event.as_str(), wire),
            Some(view) => {
                event_line(event.as_str(), &view.show_cached(wire, self.registered.kind.namespace_references))
            }
        }
    }

    fn shaped(&mut self, event: EventType, wire: &[u8]) -> Bytes {
        let stored: Value = serde_json::from_slice(wire).unwrap_or_default();
        let mut object = shape::from_stored(&self.registered, stored);
        if let Some(view) = &self.view {
            view.show(&mut object, self.registered.kind.namespace_references);
        }
        let with_columns = !std::mem::replace(&mut self.has_sent_columns, true);
        match shape::shape(&self.registered, self.shape, &self.query, &object, with_columns) {
            Ok(shaped) => event_line(event.as_str(), shaped.to_string().as_bytes()),
            Err(error) => self.error(&error),
        }
    }

    /// Encodes a bookmark.
    pub(super) fn bookmark(&mut self, revision: u64, ends_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let is_first = !std::mem::replace(&mut self.has_sent_columns, true);
        let object = match self.shape {
            Shape::Object => json!({
                "kind": self.registered.kind.kind, "apiVersion": self.registered.api_version, "metadata": metadata,
            }),
            Shape::Partial => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            }),
            Shape::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": is_first.then(|| shape::columns(&self.registered)),
                "rows": [{"cells": [], "object": {
                    "kind": self.registered.kind.kind, "apiVersion": self.registered.api_version, "metadata": metadata,
                }}],
            }),
        };
        event_line("BOOKMARK", object.to_string().as_bytes())
    }

    /// Encodes the error that ends the watch.
    pub(super) fn error(&self, error: &ApiError) -> Bytes {
        event_line("ERROR", error.to_status().to_string().as_bytes())
    }
}
