//! One change of one object, as watchers see it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::object::CachedObject;
use crate::state::storage::encoding;

/// The type of event that a watcher receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// The object was created, or is now selected.
    Added,
    /// The object has changed.
    Modified,
    /// The object was deleted, or is no longer selected.
    Deleted,
}

impl EventType {
    /// Returns the name of the type on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// One change of one object. Its encodings are made once and shared by all watchers.
#[derive(Debug)]
pub struct Change {
    /// The revision that made it.
    pub revision: u64,
    /// The object before; `None` if it did not exist.
    pub previous: Option<Arc<CachedObject>>,
    /// The object after; `None` if it was deleted.
    pub current: Option<Arc<CachedObject>>,
    lines: [OnceLock<Bytes>; 3],
}

impl Change {
    pub(super) fn new(revision: u64, previous: Option<Arc<CachedObject>>, current: Option<Arc<CachedObject>>) -> Self {
        Change { revision, previous, current, lines: Default::default() }
    }

    /// Returns the object: its new state, or the last state of a deleted object.
    pub fn subject(&self) -> Option<&Arc<CachedObject>> {
        self.current.as_ref().or(self.previous.as_ref())
    }

    /// Returns the object as an event of this type contains it: a deletion has the last state at the revision of the deletion.
    pub fn object(&self, event: EventType) -> Bytes {
        match (event, &self.current, &self.previous) {
            (EventType::Deleted, _, Some(previous)) => encoding::at_revision(&previous.wire, self.revision),
            (_, Some(current), _) => current.wire.clone(),
            (_, None, Some(previous)) => encoding::at_revision(&previous.wire, self.revision),
            (_, None, None) => Bytes::new(),
        }
    }

    /// Returns the encoded line of a watch.
    pub fn line(&self, event: EventType) -> Bytes {
        self.lines[event as usize].get_or_init(|| event_line(event.as_str(), &self.object(event))).clone()
    }

    /// Returns the approximate memory in bytes that the change holds: both states of the object, and the line that watchers are sent.
    pub(super) fn weight(&self) -> usize {
        let size = |object: &Option<Arc<CachedObject>>| object.as_ref().map_or(0, |it| it.wire.len());
        let (previous, current) = (size(&self.previous), size(&self.current));
        previous + current + previous.max(current) + 256
    }
}

/// Encodes `{"type":…,"object":…}` and a line feed.
pub fn event_line(event: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + event.len() + 24);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}
