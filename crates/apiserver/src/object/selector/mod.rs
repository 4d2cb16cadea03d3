//! Label and field selectors, with Kubernetes' grammar and parse errors.

mod field;
mod label;
mod lexer;

#[cfg(test)]
mod tests;

pub use field::{FieldSelector, field_text, value_text};
pub use label::{LabelSelector, Operator, Requirement};

/// A selector that cannot be parsed: HTTP 400, the text is the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);
