//! Decodes Kubernetes' protobuf form of the core kinds, which typed clients (among them kubectl's own commands) send. Responses
//! are JSON, which the same clients accept. Field numbers are those of the `generated.proto` files in `k8s.io/api` and
//! `k8s.io/apimachinery`.

mod kinds;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use kinds::Type::{Bool, BytesMap, Int, Json, Many, MicroTime, One, QuantityMap, Text, TextMap, Texts, Time};
use kinds::{KINDS, Message};

/// The prefix of the encoding.
const MAGIC: &[u8] = b"k8s\0";
/// The maximum nesting of messages in the kinds below; deeper input is an attack.
const MAX_DEPTH: usize = 16;

/// Decodes an object; `None` if the bytes are malformed or the kind has no protobuf form here.
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
    // DeleteOptions are sent with the version of the object that is deleted.
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
            (Text, Wire::Bytes([])) => return Some(()),
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
            (TextMap | BytesMap | QuantityMap, Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes, kind)?;
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

fn entry(bytes: &[u8], kind: &kinds::Type) -> Option<(String, Value)> {
    let (mut key, mut value) = (String::new(), Value::String(String::new()));
    for_each(bytes, |number, wire| {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = std::str::from_utf8(bytes).ok()?.to_owned(),
            (2, Wire::Bytes(bytes)) => match kind {
                BytesMap => value = STANDARD.encode(bytes).into(),
                QuantityMap => for_each(bytes, |number, wire| {
                    if let (1, Wire::Bytes(quantity)) = (number, wire) {
                        value = text(quantity)?;
                    }
                    Some(())
                })?,
                _ => value = text(bytes)?,
            },
            _ => {}
        }
        Some(())
    })?;
    Some((key, value))
}

/// Decodes a time; the inner `None` is Go's zero time, which means no time.
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
    /// Go's zero time, in year 1.
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
    fn the_body_that_kubectl_sends_for_a_namespace_is_read() {
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
