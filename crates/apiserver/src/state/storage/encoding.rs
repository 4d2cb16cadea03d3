//! The encoding of objects in the store and on the wire.
//!
//! Stored bytes are the JSON of the object with `apiVersion`, `kind` and `metadata` in front, and in `metadata` first the name,
//! the namespace and an empty `resourceVersion`. So the wire form is the stored form with the revision's digits inserted, and the
//! position of the namespace is known without parsing: an object is encoded once for all readers. None of the values before the
//! revision can contain a quote, so its position is found by search.

use std::ops::Range;

use bytes::Bytes;
use serde_json::{Map, Value};

const REVISION_FIELD: &[u8] = b"\"resourceVersion\":\"";

/// Returns the stored form.
pub fn encode(object: &Value) -> Vec<u8> {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"apiVersion\":");
    write(&mut out, object.get("apiVersion").unwrap_or(&Value::Null));
    out.extend_from_slice(b",\"kind\":");
    write(&mut out, object.get("kind").unwrap_or(&Value::Null));
    out.extend_from_slice(b",\"metadata\":{\"name\":");
    write(&mut out, metadata.get("name").unwrap_or(&Value::Null));
    if let Some(namespace) = metadata.get("namespace") {
        out.extend_from_slice(b",\"namespace\":");
        write(&mut out, namespace);
    }
    out.extend_from_slice(b",\"resourceVersion\":\"\"");
    for (key, value) in metadata {
        if !matches!(key.as_str(), "name" | "namespace" | "resourceVersion") {
            write_entry(&mut out, key, value);
        }
    }
    out.push(b'}');
    for (key, value) in object {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            write_entry(&mut out, key, value);
        }
    }
    out.push(b'}');
    out
}

fn write(out: &mut Vec<u8>, value: &Value) {
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(out, value);
}

fn write_entry(out: &mut Vec<u8>, key: &str, value: &Value) {
    out.push(b',');
    let _ = serde_json::to_writer(&mut *out, key);
    out.push(b':');
    write(out, value);
}

/// Returns the wire form of a stored form (or of another wire form) at a revision.
pub fn at_revision(encoded: &[u8], revision: u64) -> Bytes {
    let span = revision_span(encoded).unwrap_or(0..0);
    let digits = revision.to_string();
    let mut out = Vec::with_capacity(encoded.len() + digits.len());
    out.extend_from_slice(&encoded[..span.start]);
    if !span.is_empty() || span.start > 0 {
        out.extend_from_slice(digits.as_bytes());
    }
    out.extend_from_slice(&encoded[span.end..]);
    out.into()
}

/// Returns the position of the revision's digits (an empty range in the stored form).
pub fn revision_span(encoded: &[u8]) -> Option<Range<usize>> {
    value_span(encoded, REVISION_FIELD)
}

/// Returns the position of the namespace in bytes from [`encode`], so that views can replace it.
pub fn namespace_span(encoded: &[u8]) -> Option<Range<usize>> {
    value_span(&encoded[..revision_span(encoded)?.start], b"\"namespace\":\"")
}

fn value_span(encoded: &[u8], field: &[u8]) -> Option<Range<usize>> {
    let start = encoded.windows(field.len()).position(|window| window == field)? + field.len();
    let length = encoded[start..].iter().position(|byte| *byte == b'"')?;
    Some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn revision_and_namespace_stand_where_they_are_looked_for() {
        let object = json!({
            "spec": {"a": 1}, "kind": "Disk", "apiVersion": "x/v1",
            "metadata": {"labels": {"b": "\"resourceVersion\":\""}, "namespace": "demo", "name": "d", "resourceVersion": "4"},
        });
        let stored = encode(&object);
        let wire = at_revision(&stored, 77);
        let mut expected = object.clone();
        expected["metadata"]["resourceVersion"] = json!("77");
        assert_eq!(serde_json::from_slice::<Value>(&wire).unwrap(), expected);
        assert_eq!(&wire[namespace_span(&wire).unwrap()], b"demo");
        assert_eq!(at_revision(&wire, 123_456), at_revision(&stored, 123_456));
    }
}
