//! A small protobuf writer: a table of its fields describes a message, which is then written from JSON.

use crate::object::go_text::go_json;
use serde_json::Value;

/// A message: which JSON key becomes which field.
pub(super) struct Message {
    pub fields: &'static [Field],
    /// The repeated NamedAny that holds all `x-…` keys.
    pub extensions: Option<u32>,
    /// The repeated pair that holds all other keys: its field 1 is the name, this field writes the value.
    pub entries: Option<(u32, &'static Field)>,
}

pub(super) struct Field {
    pub key: &'static str,
    pub number: u32,
    pub kind: Kind,
}

pub(super) const fn field(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind }
}

pub(super) enum Kind {
    Text,
    Texts,
    Bool,
    Int,
    Double,
    /// JSON as text (which is YAML too) in an Any.
    Any,
    Anys,
    One(&'static Message),
    Many(&'static Message),
    /// Not written.
    Nothing,
    /// A message whose only field is this one, written from the same JSON.
    Wrapped(&'static Field),
    /// The same for every item of a list.
    EachWrapped(&'static Field),
    /// One of several fields, chosen by the JSON.
    Choice(fn(&Value) -> &'static Field),
    /// The same for every item of a list, each in a message of its own at this field.
    EachChoice(fn(&Value) -> &'static Field),
}

pub(super) fn encode(document: &Value, message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    write_message(document, message, &mut out);
    out
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(number: u32, wire: u8, out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | u64::from(wire), out);
}

fn bytes(number: u32, content: &[u8], out: &mut Vec<u8>) {
    tag(number, 2, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn nested(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    write(&mut content);
    bytes(number, &content, out);
}

fn any(number: u32, value: &Value, out: &mut Vec<u8>) {
    nested(number, out, |out| bytes(2, go_json(value).as_bytes(), out));
}

fn write_message(value: &Value, message: &Message, out: &mut Vec<u8>) {
    let Some(map) = value.as_object() else { return };
    let mut rest: Vec<(&String, &Value)> = Vec::new();
    for (key, entry) in map {
        match message.fields.iter().find(|f| f.key == key) {
            Some(field) => write_field(entry, field, out),
            None => rest.push((key, entry)),
        }
    }
    for (key, entry) in rest {
        match (message.extensions, message.entries) {
            (Some(number), _) if key.starts_with("x-") => nested(number, out, |out| {
                bytes(1, key.as_bytes(), out);
                any(2, entry, out);
            }),
            (_, Some((number, value))) => nested(number, out, |out| {
                bytes(1, key.as_bytes(), out);
                write_field(entry, value, out);
            }),
            _ => {}
        }
    }
}

fn write_field(value: &Value, field: &Field, out: &mut Vec<u8>) {
    let number = field.number;
    let items = || value.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(value));
    match &field.kind {
        Kind::Text => bytes(number, value.as_str().unwrap_or_default().as_bytes(), out),
        Kind::Texts => items().iter().for_each(|v| bytes(number, v.as_str().unwrap_or_default().as_bytes(), out)),
        Kind::Bool => {
            tag(number, 0, out);
            out.push(u8::from(value == &Value::Bool(true)));
        }
        Kind::Int => {
            tag(number, 0, out);
            let int = value.as_i64().unwrap_or_else(|| value.as_f64().unwrap_or_default() as i64);
            varint(int as u64, out);
        }
        Kind::Double => {
            tag(number, 1, out);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        Kind::Any => any(number, value, out),
        Kind::Anys => items().iter().for_each(|v| any(number, v, out)),
        Kind::One(message) => nested(number, out, |out| write_message(value, message, out)),
        Kind::Many(message) => items().iter().for_each(|v| nested(number, out, |out| write_message(v, message, out))),
        Kind::Nothing => {}
        Kind::Wrapped(inner) => nested(number, out, |out| write_field(value, inner, out)),
        Kind::EachWrapped(inner) => {
            items().iter().for_each(|v| nested(number, out, |out| write_field(v, inner, out)));
        }
        Kind::Choice(choose) => nested(number, out, |out| write_field(value, choose(value), out)),
        Kind::EachChoice(choose) => {
            items().iter().for_each(|v| nested(number, out, |out| write_field(v, choose(v), out)));
        }
    }
}
