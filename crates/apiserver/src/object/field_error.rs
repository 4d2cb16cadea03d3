//! Field errors in Kubernetes' wording (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::collections::HashSet;

use serde_json::Value;

/// Problems of one kind that are kept of one document, as in the decoder of Kubernetes: further ones are as many again to read, and to send.
pub(crate) const MAX_PROBLEMS: usize = 100;
/// Bytes of their paths, after which no further one is kept: a path may be as long as the document.
pub(crate) const MAX_PROBLEM_BYTES: usize = 64 * 1024;

/// Paths of problems, each once and no more than an answer can hold.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    paths: Vec<String>,
    seen: HashSet<String>,
    bytes: usize,
}

impl Problems {
    /// Whether further ones are left out.
    pub(crate) fn is_full(&self) -> bool {
        self.paths.len() >= MAX_PROBLEMS || self.bytes >= MAX_PROBLEM_BYTES
    }

    /// Keeps a path; it is made only if it is kept.
    pub(crate) fn add(&mut self, path: impl FnOnce() -> String) {
        if self.is_full() {
            return;
        }
        let path = path();
        if self.seen.insert(path.clone()) {
            self.bytes += path.len();
            self.paths.push(path);
        }
    }

    /// The paths in the order in which they were found.
    pub(crate) fn into_paths(self) -> Vec<String> {
        self.paths
    }
}

/// The kind of mistake that a [`FieldError`] reports; becomes the `reason` of a Status cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A value that refers to something that does not exist.
    NotFound,
    /// A value is missing.
    Required,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// A malformed value.
    Invalid,
    /// A value outside the enumerated ones.
    NotSupported,
    /// A well-formed value that is not allowed here.
    Forbidden,
    /// A string or document longer than allowed.
    TooLong,
    /// A string shorter than allowed.
    TooShort,
    /// A list or map with more entries than allowed.
    TooMany,
    /// A list or map with fewer entries than allowed.
    TooFew,
    /// A value of another JSON type than the schema's.
    TypeInvalid,
    /// A fault of the server, not of the input.
    Internal,
}

impl Reason {
    /// The machine-readable name in `details.causes[].reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NotFound => "FieldValueNotFound",
            Reason::Required => "FieldValueRequired",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::Invalid => "FieldValueInvalid",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooShort => "FieldValueTooShort",
            Reason::TooMany => "FieldValueTooMany",
            Reason::TooFew => "FieldValueTooFew",
            Reason::TypeInvalid => "FieldValueTypeInvalid",
            Reason::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Reason::NotFound => "Not found",
            Reason::Required => "Required value",
            Reason::Duplicate => "Duplicate value",
            Reason::Invalid | Reason::TypeInvalid => "Invalid value",
            Reason::NotSupported => "Unsupported value",
            Reason::Forbidden => "Forbidden",
            Reason::TooLong => "Too long",
            Reason::TooShort => "Too short",
            Reason::TooMany => "Too many",
            Reason::TooFew => "Too few",
            Reason::Internal => "Internal error",
        }
    }

    /// Whether CEL rules are not run on an object with such an error.
    pub(crate) fn blocks_rules(self) -> bool {
        matches!(
            self,
            Reason::NotSupported | Reason::Required | Reason::TooLong | Reason::TooMany | Reason::TypeInvalid
        )
    }

    fn shows_value(self) -> bool {
        !matches!(self, Reason::Required | Reason::Forbidden | Reason::TooLong | Reason::TooShort | Reason::Internal)
    }
}

/// Bytes of errors that are kept of one object: with all of them the answer to a wrong object would be many times its size.
const MAX_ERROR_BYTES: usize = 256 * 1024;

/// The errors of one object, in the order in which they are found and no more than an answer can hold.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    pub(crate) list: Vec<FieldError>,
    bytes: usize,
}

impl Errors {
    /// Whether further ones are left out.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MAX_ERROR_BYTES
    }

    /// Keeps an error if there is room. Do not make it where [`Errors::is_full`].
    pub(crate) fn push(&mut self, error: FieldError) {
        if !self.is_full() {
            self.bytes += error.bytes();
            self.list.push(error);
        }
    }

    /// Keeps those of another list for which there is room.
    pub(crate) fn extend(&mut self, other: Errors) {
        other.list.into_iter().for_each(|error| self.push(error));
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets them.
    pub(crate) fn clear(&mut self) {
        *self = Errors::default();
    }
}

/// As many of the errors, from the first on, as an answer can hold: at least one, if there is one.
pub(crate) fn first_errors(errors: &[FieldError]) -> &[FieldError] {
    let mut bytes = 0;
    let fits = |error: &&FieldError| {
        let is_room = bytes < MAX_ERROR_BYTES;
        bytes += error.bytes();
        is_room
    };
    &errors[..errors.iter().take_while(fits).count()]
}

/// One mistake at one field. `Display` gives Kubernetes' line: `spec.size: Invalid value: -1: must be positive`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// The path, e.g. `spec.diskRefs[0].name` or `spec.labels[a.b/c]`; `<nil>` where Kubernetes has no path.
    pub path: String,
    /// The kind of mistake.
    pub reason: Reason,
    /// The offending value; `None` if the message does not show it.
    pub value: Option<Value>,
    /// The expectation.
    pub detail: String,
}

impl FieldError {
    /// Its size in a response, at least one byte.
    fn bytes(&self) -> usize {
        64 + self.path.len() + self.detail.len() + self.value.as_ref().map_or(0, |it| go_json(it).len())
    }

    /// A malformed value.
    pub fn invalid(path: impl Into<String>, value: Value, detail: impl Into<String>) -> Self {
        Self { path: path.into(), reason: Reason::Invalid, value: Some(value), detail: detail.into() }
    }

    /// A value of the wrong JSON type.
    pub fn type_invalid(path: impl Into<String>, value: Value, detail: impl Into<String>) -> Self {
        Self { path: path.into(), reason: Reason::TypeInvalid, value: Some(value), detail: detail.into() }
    }

    /// A missing value.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), reason: Reason::Required, value: None, detail: detail.into() }
    }

    /// A value that is not allowed here.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), reason: Reason::Forbidden, value: None, detail: detail.into() }
    }

    /// A value that occurs twice.
    pub fn duplicate(path: impl Into<String>, value: Value) -> Self {
        Self { path: path.into(), reason: Reason::Duplicate, value: Some(value), detail: String::new() }
    }

    /// A value outside the list of supported ones (given as they are to be shown, unquoted).
    pub fn not_supported<S: AsRef<str>>(path: impl Into<String>, value: Value, supported: &[S]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| go_quote(s.as_ref())).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self { path: path.into(), reason: Reason::NotSupported, value: Some(value), detail }
    }

    /// A document or string longer than `max` bytes.
    pub fn too_long(path: impl Into<String>, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self {
            path: path.into(),
            reason: Reason::TooLong,
            value: None,
            detail: format!("may not be more than {max} {unit}"),
        }
    }

    /// A list or map of `actual` entries where `max` are allowed.
    pub fn too_many(path: impl Into<String>, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self {
            path: path.into(),
            reason: Reason::TooMany,
            value: Some(Value::from(actual)),
            detail: format!("must have at most {max} {unit}"),
        }
    }

    /// Returns the message without the path, as in `details.causes[].message`.
    pub fn body(&self) -> String {
        let mut out = String::from(self.reason.text());
        if self.reason.shows_value()
            && let Some(value) = &self.value
        {
            out.push_str(": ");
            match value {
                Value::String(s) => out.push_str(&go_quote(s)),
                Value::Number(n) => out.push_str(&go_number(n)),
                other => out.push_str(&go_json(other)),
            }
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// Quotes as Go's `%q` does.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Writes a number as Go's `%v` does: integers plain, floats as [`go_float`].
pub fn go_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => go_float(float),
        _ => number.to_string(),
    }
}

/// Go's `%v` of a float64: shortest form, with an exponent from 1e6 up and below 1e-4.
pub fn go_float(float: f64) -> String {
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let (mantissa, sign, digits) = exponent_form(float);
        format!("{mantissa}e{sign}{digits:0>2}")
    } else {
        format!("{float}")
    }
}

fn exponent_form(float: f64) -> (String, char, String) {
    let text = format!("{float:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(digits) => (mantissa.to_string(), '-', digits.to_string()),
        None => (mantissa.to_string(), '+', exponent.to_string()),
    }
}

/// A number as Go's `json.Marshal` writes it: plain digits from 1e-6 up to 1e21.
fn go_json_number(number: &serde_json::Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) if float == 0.0 || (1e-6..1e21).contains(&float.abs()) => format!("{float}"),
        Some(float) => {
            let (mantissa, sign, digits) = exponent_form(float);
            format!("{mantissa}e{sign}{digits}")
        }
        None => number.to_string(),
    }
}

/// Compact JSON as Go's `json.Marshal` writes it: keys sorted, `<`, `>` and `&` escaped.
pub fn go_json(value: &Value) -> String {
    let mut out = String::new();
    write_go_json(value, &mut out);
    out
}

fn write_go_json(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (key, entry)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_go_json_string(key, out);
                out.push(':');
                write_go_json(entry, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_go_json(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_go_json_string(text, out),
        Value::Number(number) => out.push_str(&go_json_number(number)),
        other => out.push_str(&other.to_string()),
    }
}

fn write_go_json_string(text: &str, out: &mut String) {
    let plain = Value::from(text).to_string();
    for c in plain.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
}

/// Returns a path of the schema as error messages show it.
pub(crate) fn shown(path: &str) -> String {
    if path.is_empty() { "the root".to_string() } else { path.to_string() }
}

/// A field that the schema does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownField {
    /// The path, e.g. `spec.disks[0].colour`.
    pub path: String,
}
