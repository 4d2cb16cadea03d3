//! Kubernetes' protobuf form of the core kinds, which typed clients (kubectl's own commands among them) send. Only read:
//! answers are JSON, which the same clients accept. Field numbers are those of the `generated.proto` files in
//! `k8s.io/api` and `k8s.io/apimachinery`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What the bytes begin with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages nest at most so deep in the kinds below; more is an attack.
const MAX_DEPTH: usize = 16;

enum Type {
    Text,
    Int,
    Bool,
    /// Seconds in RFC 3339.
    Time,
    /// Microseconds in RFC 3339.
    MicroTime,
    Texts,
    TextMap,
    BytesMap,
    /// Bytes that are JSON.
    Json,
    One(Message),
    Many(Message),
}

type Field = (u64, &'static str, Type);
type Message = &'static [Field];

use Type::{Bool, BytesMap, Int, Json, Many, MicroTime, One, Text, TextMap, Texts, Time};

const OWNER: Message = &[
    (1, "kind", Text), (3, "name", Text), (4, "uid", Text), (5, "apiVersion", Text), (6, "controller", Bool),
    (7, "blockOwnerDeletion", Bool),
];
const FIELDS: Message = &[(1, "", Json)];
const MANAGED: Message = &[
    (1, "manager", Text), (2, "operation", Text), (3, "apiVersion", Text), (4, "time", Time), (6, "fieldsType", Text),
    (7, "fieldsV1", One(FIELDS)), (8, "subresource", Text),
];
const METADATA: Message = &[
    (1, "name", Text), (2, "generateName", Text), (3, "namespace", Text), (5, "uid", Text), (6, "resourceVersion", Text),
    (7, "generation", Int), (8, "creationTimestamp", Time), (9, "deletionTimestamp", Time),
    (10, "deletionGracePeriodSeconds", Int), (11, "labels", TextMap), (12, "annotations", TextMap),
    (13, "ownerReferences", Many(OWNER)), (14, "finalizers", Texts), (17, "managedFields", Many(MANAGED)),
];
const REFERENCE: Message = &[
    (1, "kind", Text), (2, "namespace", Text), (3, "name", Text), (4, "uid", Text), (5, "apiVersion", Text),
    (6, "resourceVersion", Text), (7, "fieldPath", Text),
];
const SOURCE: Message = &[(1, "component", Text), (2, "host", Text)];
const SERIES: Message = &[(1, "count", Int), (2, "lastObservedTime", MicroTime)];
const NAMESPACE_SPEC: Message = &[(1, "finalizers", Texts)];
const NAMESPACE_STATUS: Message = &[(1, "phase", Text)];
const NAMESPACE: Message =
    &[(1, "metadata", One(METADATA)), (2, "spec", One(NAMESPACE_SPEC)), (3, "status", One(NAMESPACE_STATUS))];
const CONFIG_MAP: Message =
    &[(1, "metadata", One(METADATA)), (2, "data", TextMap), (3, "binaryData", BytesMap), (4, "immutable", Bool)];
const SECRET: Message = &[
    (1, "metadata", One(METADATA)), (2, "data", BytesMap), (3, "type", Text), (4, "stringData", TextMap),
    (5, "immutable", Bool),
];
const EVENT: Message = &[
    (1, "metadata", One(METADATA)), (2, "involvedObject", One(REFERENCE)), (3, "reason", Text), (4, "message", Text),
    (5, "source", One(SOURCE)), (6, "firstTimestamp", Time), (7, "lastTimestamp", Time), (8, "count", Int),
    (9, "type", Text), (10, "eventTime", MicroTime), (11, "series", One(SERIES)), (12, "action", Text),
    (13, "related", One(REFERENCE)), (14, "reportingComponent", Text), (15, "reportingInstance", Text),
];
const NEW_EVENT: Message = &[
    (1, "metadata", One(METADATA)), (2, "eventTime", MicroTime), (3, "series", One(SERIES)),
    (4, "reportingController", Text), (5, "reportingInstance", Text), (6, "action", Text), (7, "reason", Text),
    (8, "regarding", One(REFERENCE)), (9, "related", One(REFERENCE)), (10, "note", Text), (11, "type", Text),
    (12, "deprecatedSource", One(SOURCE)), (13, "deprecatedFirstTimestamp", Time), (14, "deprecatedLastTimestamp", Time),
    (15, "deprecatedCount", Int),
];
const LEASE_SPEC: Message = &[
    (1, "holderIdentity", Text), (2, "leaseDurationSeconds", Int), (3, "acquireTime", MicroTime),
    (4, "renewTime", MicroTime), (5, "leaseTransitions", Int), (6, "strategy", Text), (7, "preferredHolder", Text),
];
const LEASE: Message = &[(1, "metadata", One(METADATA)), (2, "spec", One(LEASE_SPEC))];
const RESOURCE_ATTRIBUTES: Message = &[
    (1, "namespace", Text), (2, "verb", Text), (3, "group", Text), (4, "version", Text), (5, "resource", Text),
    (6, "subresource", Text), (7, "name", Text),
];
const PATH_ATTRIBUTES: Message = &[(1, "path", Text), (2, "verb", Text)];
const ACCESS_SPEC: Message =
    &[(1, "resourceAttributes", One(RESOURCE_ATTRIBUTES)), (2, "nonResourceAttributes", One(PATH_ATTRIBUTES))];
const ACCESS_REVIEW: Message = &[(1, "metadata", One(METADATA)), (2, "spec", One(ACCESS_SPEC))];
const RULES_SPEC: Message = &[(1, "namespace", Text)];
const RULES_REVIEW: Message = &[(1, "metadata", One(METADATA)), (2, "spec", One(RULES_SPEC))];
const SUBJECT_REVIEW: Message = &[(1, "metadata", One(METADATA))];
const PRECONDITIONS: Message = &[(1, "uid", Text), (2, "resourceVersion", Text)];
const DELETE_OPTIONS: Message = &[
    (1, "gracePeriodSeconds", Int), (2, "preconditions", One(PRECONDITIONS)), (3, "orphanDependents", Bool),
    (4, "propagationPolicy", Text), (5, "dryRun", Texts),
];

const KINDS: [(&str, &str, Message); 10] = [
    ("v1", "Namespace", NAMESPACE),
    ("v1", "ConfigMap", CONFIG_MAP),
    ("v1", "Secret", SECRET),
    ("v1", "Event", EVENT),
    ("events.k8s.io/v1", "Event", NEW_EVENT),
    ("coordination.k8s.io/v1", "Lease", LEASE),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", ACCESS_REVIEW),
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview", RULES_REVIEW),
    ("authentication.k8s.io/v1", "SelfSubjectReview", SUBJECT_REVIEW),
    ("v1", "DeleteOptions", DELETE_OPTIONS),
];

/// Reads an object; `None` if the bytes are malformed or of a kind that has no protobuf form here.
pub(crate) fn decode(bytes: &[u8]) -> Option<Value> {
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for_each(bytes.strip_prefix(MAGIC)?, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => for_each(meta, |number, wire| {
                match (number, wire) {
                    (1, Wire::Bytes(text)) => api_version = std::str::from_utf8(text).ok()?.into(),
                    (2, Wire::Bytes(text)) => kind = std::str::from_utf8(text).ok()?.into(),
                    _ => {}
                }
                Some(())
            })?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
        Some(())
    })?;
    // DeleteOptions are sent under the version of whatever is deleted.
    let (_, _, message) = KINDS
        .iter()
        .find(|(version, name, _)| *name == kind && (*version == api_version || kind == "DeleteOptions"))?;
    let mut object = read(raw, message, 0)?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    Some(object)
}

enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn for_each<'a>(mut bytes: &'a [u8], mut field: impl FnMut(u64, Wire<'a>) -> Option<()>) -> Option<()> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let wire = match tag & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            1 => Wire::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Wire::Bytes(take(&mut bytes, length)?)
            }
            5 => Wire::Bytes(take(&mut bytes, 4)?),
            _ => return None,
        };
        field(tag >> 3, wire)?;
    }
    Some(())
}

fn text(bytes: &[u8]) -> Option<Value> {
    Some(std::str::from_utf8(bytes).ok()?.into())
}

fn read(bytes: &[u8], message: Message, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    let mut out = Map::new();
    let mut whole = None;
    for_each(bytes, |number, wire| {
        let Some((_, name, kind)) = message.iter().find(|(it, _, _)| *it == number) else { return Some(()) };
        let value = match (kind, wire) {
            (Text, Wire::Bytes(bytes)) if bytes.is_empty() => return Some(()),
            (Text, Wire::Bytes(bytes)) => text(bytes)?,
            // Two's complement, as protobuf has it.
            (Int, Wire::Number(0)) if matches!(*name, "generation" | "count" | "deprecatedCount") => return Some(()),
            (Int, Wire::Number(number)) => json!(number as i64),
            (Bool, Wire::Number(number)) => json!(number != 0),
            (Time | MicroTime, Wire::Bytes(bytes)) => match time(bytes, matches!(kind, MicroTime))? {
                Some(time) => time,
                None => return Some(()),
            },
            (Json, Wire::Bytes(bytes)) => {
                whole = Some(serde_json::from_slice(bytes).ok()?);
                return Some(());
            }
            (One(inner), Wire::Bytes(bytes)) => read(bytes, inner, depth + 1)?,
            (Many(inner), Wire::Bytes(bytes)) => return push(&mut out, name, read(bytes, inner, depth + 1)?),
            (Texts, Wire::Bytes(bytes)) => return push(&mut out, name, text(bytes)?),
            (TextMap | BytesMap, Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes, matches!(kind, BytesMap))?;
                let map = out.entry(*name).or_insert_with(|| json!({}));
                map[key] = value;
                return Some(());
            }
            _ => return None,
        };
        out.insert((*name).to_owned(), value);
        Some(())
    })?;
    Some(whole.unwrap_or(Value::Object(out)))
}

fn push(out: &mut Map<String, Value>, name: &str, value: Value) -> Option<()> {
    out.entry(name).or_insert_with(|| json!([])).as_array_mut()?.push(value);
    Some(())
}

fn entry(bytes: &[u8], is_bytes: bool) -> Option<(String, Value)> {
    let (mut key, mut value) = (String::new(), Value::String(String::new()));
    for_each(bytes, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = std::str::from_utf8(bytes).ok()?.to_owned(),
            (2, Wire::Bytes(bytes)) if is_bytes => value = STANDARD.encode(bytes).into(),
            (2, Wire::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
        Some(())
    })?;
    Some((key, value))
}

/// A moment; the inner `None` is Go's zero time, which means that there is none.
fn time(bytes: &[u8], with_micros: bool) -> Option<Option<Value>> {
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    let mut is_empty = true;
    for_each(bytes, |number, wire| {
        is_empty = false;
        match (number, wire) {
            (1, Wire::Number(number)) => seconds = number as i64,
            (2, Wire::Number(number)) => nanos = number as i32,
            _ => {}
        }
        Some(())
    })?;
    /// Year 1: what Go calls zero.
    const GO_ZERO: i64 = -62_135_596_800;
    if is_empty || seconds == GO_ZERO {
        return Some(None);
    }
    let moment = Timestamp::new(seconds, nanos).ok()?;
    let format = if with_micros { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Some(Some(moment.strftime(format).to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_sends_for_a_namespace_is_read() {
        let metadata = b"\x0a\x04demo\x12\x00\x1a\x00\x42\x00\x5a\x06\x0a\x01a\x12\x01b";
        let mut raw = vec![0x0a, metadata.len() as u8];
        raw.extend_from_slice(metadata);
        raw.extend_from_slice(b"\x12\x00\x1a\x02\x0a\x00");
        let mut bytes = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12".to_vec();
        bytes.push(raw.len() as u8);
        bytes.extend_from_slice(&raw);
        bytes.extend_from_slice(b"\x1a\x00\x22\x00");
        let expected = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo", "labels": {"a": "b"}},
            "spec": {}, "status": {},
        });
        assert_eq!(decode(&bytes), Some(expected));
        for length in 0..bytes.len() {
            // Cut anywhere: refused or incomplete, never a panic.
            let _ = decode(&bytes[..length]);
        }
    }
}
