//! Decodes JSON, reports duplicate keys, and normalises numbers as Kubernetes does.
//!
//! Kubernetes reads `1` as an integer and `1.0` as a float, and writes both as `1`. So a float without a fraction becomes an
//! integer here, where it fits.

use crate::object::problems::Problems;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;

/// The maximum nesting of objects and lists in a client's input. Without a limit a body of 3 MiB overflows the stack of recursive
/// code. With a higher limit an object could be stored that, with its managedFields (six levels deeper) and the list around it,
/// could not be read again, because JSON libraries stop at 127.
pub const MAX_DEPTH: usize = 100;

/// Returns the nesting of a value: 0 for a string, 1 for an empty list.
pub fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Whether a value is nested deeper than [`MAX_DEPTH`].
pub fn is_too_deep(value: &Value) -> bool {
    depth(value) > MAX_DEPTH
}

/// A key that occurs more than once in an object; the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateField {
    /// The path, e.g. `spec.size`.
    pub path: String,
}

/// Bytes that are not acceptable JSON.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("decoding JSON")]
    Json(#[source] serde_json::Error),
    /// Nested deeper than the server accepts.
    #[error("decoding JSON: nested too deep")]
    TooDeep,
}

/// Decodes JSON; see the module for numbers. Duplicates are in the order they occur, each path once, and not all of very many.
pub fn decode_strict(bytes: &[u8]) -> Result<(Value, Vec<DuplicateField>), DecodeError> {
    let state = State { path: RefCell::default(), duplicates: RefCell::default() };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(&state).deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    match value {
        Ok(value) if is_too_deep(&value) => Err(DecodeError::TooDeep),
        Ok(value) => {
            let paths = state.duplicates.into_inner().into_paths();
            Ok((value, paths.into_iter().map(|path| DuplicateField { path }).collect()))
        }
        Err(error) if error.to_string().starts_with("recursion limit exceeded") => Err(DecodeError::TooDeep),
        Err(error) => Err(DecodeError::Json(error)),
    }
}

/// Returns the error of a write with `fieldValidation=Strict` (HTTP 400): `strict decoding error: unknown field "spec.a",
/// duplicate field "spec.b"`. `None` if there is nothing to report.
pub fn strict_error(duplicates: &[DuplicateField], unknown: &[super::UnknownField]) -> Option<String> {
    let problems = strict_warnings(duplicates, unknown);
    (!problems.is_empty()).then(|| format!("strict decoding error: {}", problems.join(", ")))
}

/// Returns the same problems one by one: the warning headers with `fieldValidation=Warn`.
pub fn strict_warnings(duplicates: &[DuplicateField], unknown: &[super::UnknownField]) -> Vec<String> {
    let duplicate = duplicates.iter().map(|d| format!("duplicate field {}", crate::object::go_text::go_quote(&d.path)));
    let unknown = unknown.iter().map(|u| format!("unknown field {}", crate::object::go_text::go_quote(&u.path)));
    duplicate.chain(unknown).collect()
}

/// Returns the number as Kubernetes would write it: whole floats are integers, integers beyond 63 bits are floats.
pub fn normalise_number(number: Number) -> Number {
    if let Some(float) = number.as_f64().filter(|_| number.is_f64())
        && float.fract() == 0.0
        && float.abs() < 9_223_372_036_854_775_808.0
    {
        return Number::from(float as i64);
    }
    if number.is_u64()
        && number.as_i64().is_none()
        && let Some(float) = number.as_f64().and_then(Number::from_f64)
    {
        return float;
    }
    number
}

/// [`normalise_number`] for all numbers of a value (from YAML, or made by a patch).
pub fn normalise_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => *number = normalise_number(number.clone()),
        Value::Array(items) => items.iter_mut().for_each(normalise_numbers),
        Value::Object(map) => map.values_mut().for_each(normalise_numbers),
        _ => {}
    }
}

struct State {
    path: RefCell<String>,
    duplicates: RefCell<Problems>,
}

impl State {
    fn within<T>(&self, step: impl FnOnce(&mut String), body: impl FnOnce() -> T) -> T {
        let length = self.path.borrow().len();
        step(&mut self.path.borrow_mut());
        let out = body();
        self.path.borrow_mut().truncate(length);
        out
    }

    fn record(&self, key: &str) {
        let mut duplicates = self.duplicates.borrow_mut();
        if !duplicates.is_full() {
            self.within(|path| push_field(path, key), || duplicates.add(|| self.path.borrow().clone()));
        }
    }
}

fn push_field(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

struct Seed<'a>(&'a State);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(normalise_number(Number::from(value))))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(normalise_number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let index = items.len();
            let step = |path: &mut String| path.push_str(&format!("[{index}]"));
            match self.0.within(step, || access.next_element_seed(Seed(self.0)))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                self.0.record(&key);
            }
            let value = self.0.within(|path| push_field(path, &key), || access.next_value_seed(Seed(self.0)))?;
            map.insert(key, value);
        }
        if map.contains_key("$serde_json::private::Number") {
            return Err(A::Error::custom("reserved key"));
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_take_kubernetes_form() {
        let (value, _) = decode_strict(br#"{"a":1,"b":1.0,"c":1.5,"d":1e3,"e":-0.0,"f":9223372036854775807}"#).unwrap();
        assert_eq!(value.to_string(), r#"{"a":1,"b":1,"c":1.5,"d":1000,"e":0,"f":9223372036854775807}"#);
    }

    #[test]
    fn duplicates_are_reported_with_their_path_and_the_last_counts() {
        let (value, duplicates) =
            decode_strict(br#"{"spec":{"a":1,"a":2,"a":3,"l":[{"x":1},{"x":1,"x":2}]},"spec2":1}"#).unwrap();
        assert_eq!(value, json!({"spec":{"a":3,"l":[{"x":1},{"x":2}]},"spec2":1}));
        let paths: Vec<_> = duplicates.iter().map(|d| d.path.as_str()).collect();
        assert_eq!(paths, ["spec.a", "spec.l[1].x"]);
        let unknown = [super::super::UnknownField { path: "spec.z".into() }];
        assert_eq!(
            strict_error(&duplicates, &unknown).unwrap(),
            r#"strict decoding error: duplicate field "spec.a", duplicate field "spec.l[1].x", unknown field "spec.z""#
        );
    }

    #[test]
    fn rubbish_is_refused() {
        for bytes in [&b"{"[..], b"", b"{} x", b"{\"a\":01}", b"[1,]", b"nul"] {
            assert!(matches!(decode_strict(bytes), Err(DecodeError::Json(_))), "{bytes:?}");
        }
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(matches!(decode_strict(deep.as_bytes()), Err(DecodeError::TooDeep)));
        for (depth, is_fine) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
            let text = "[".repeat(depth) + &"]".repeat(depth);
            assert_eq!(decode_strict(text.as_bytes()).is_ok(), is_fine, "{depth}");
        }
    }
}
