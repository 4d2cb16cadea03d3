//! Label and field selectors.

use serde_json::{Map, Value};

/// A selector that cannot be parsed: HTTP 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// A parsed `labelSelector`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {}

impl LabelSelector {
    /// Parses the full grammar: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`. Empty selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        Ok(Self {})
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        true
    }

    /// Whether it selects an object with these `metadata.labels` (`None`: no labels).
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let _ = labels;
        true
    }
}

/// A parsed `fieldSelector`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {}

impl FieldSelector {
    /// Parses `metadata.name=x,spec.running!=true`. `selectable` are the kind's JSON paths (`.spec.running`); `metadata.name`
    /// and, for namespaced kinds, `metadata.namespace` always are.
    pub fn parse(text: &str, namespaced: bool, selectable: &[&str]) -> Result<Self, SelectorError> {
        let _ = (text, namespaced, selectable);
        Ok(Self {})
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        true
    }

    /// The name, if `metadata.name=` pins it.
    pub fn exact_name(&self) -> Option<&str> {
        None
    }

    /// Whether it selects the object.
    pub fn matches(&self, object: &Value) -> bool {
        let _ = object;
        true
    }
}
