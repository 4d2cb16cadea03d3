//! Steps of a field path in the `fieldsV1` format: `f:name`, `k:{"name":"a"}`, `v:"a"`, `i:0`.

use crate::object::go_text::go_json;
use serde_json::{Map, Value};

/// One step. Steps are equal if their texts are: keys and values are written canonically.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step(String);

impl Step {
    /// A field of a struct or map.
    pub fn field(name: &str) -> Self {
        Self(format!("f:{name}"))
    }

    /// An item of a list of type map, by its keys.
    pub(super) fn key(keys: Map<String, Value>) -> Self {
        Self(format!("k:{}", go_json(&Value::Object(keys))))
    }

    /// An item of a set.
    pub(super) fn value(value: &Value) -> Self {
        Self(format!("v:{}", go_json(value)))
    }

    /// A position in an atomic list; only in messages.
    pub(super) fn index(index: usize) -> Self {
        Self(format!("i:{index}"))
    }

    /// Parses the `fieldsV1` format.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(2)?;
        match kind {
            "f:" => Some(Self(text.to_string())),
            "i:" => rest.parse::<u64>().ok().map(|_| Self(text.to_string())),
            "k:" => match serde_json::from_str(rest).ok()? {
                Value::Object(keys) => Some(Self::key(keys)),
                _ => None,
            },
            "v:" => Some(Self::value(&serde_json::from_str(rest).ok()?)),
            _ => None,
        }
    }

    /// Returns the step in the `fieldsV1` format.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The field's name, if it is a field.
    pub(super) fn field_name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }

    pub(super) fn is_key(&self) -> bool {
        self.0.starts_with("k:")
    }

    /// The order in which Kubernetes lists steps: fields, keys, values, positions.
    pub(super) fn rank(&self) -> u8 {
        match self.0.as_bytes().first() {
            Some(b'f') => 0,
            Some(b'k') => 1,
            Some(b'v') => 2,
            _ => 3,
        }
    }
}

/// As in messages: `.name`, `[name="a",port=1]`, `[="a"]`, `[0]`.
impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, rest) = self.0.split_at_checked(2).unwrap_or(("", &self.0));
        match kind {
            "f:" => write!(f, ".{rest}"),
            "v:" => write!(f, "[={rest}]"),
            "k:" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={}", go_json(v))).collect();
                write!(f, "[{}]", parts.join(","))
            }
            _ => write!(f, "[{rest}]"),
        }
    }
}

/// A whole path as in messages: `.spec.disks[name="a"].size`.
pub(super) fn display(path: &[Step]) -> String {
    path.iter().map(ToString::to_string).collect()
}
