//! Field errors in Kubernetes' wording (`k8s.io/apimachinery/pkg/util/validation/field`).

use serde_json::Value;

use crate::object::go_text::{go_json, go_number, go_quote};

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
