//! `fieldSelector`: `metadata.name=a,spec.running!=true`.

use super::SelectorError;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Term {
    field: String,
    value: String,
    negated: bool,
}

/// A parsed `fieldSelector`: all terms must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Parses a selector. `selectable` are the kind's JSON paths (`.spec.running`); `metadata.name` and, for namespaced kinds,
    /// `metadata.namespace` always are.
    pub fn parse(text: &str, namespaced: bool, selectable: &[&str]) -> Result<Self, SelectorError> {
        let parsed = Self::read(text)?;
        parsed.check_fields(namespaced, selectable)?;
        Ok(parsed)
    }

    /// Parses a selector of any fields.
    pub fn read(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let Some((field, value, negated)) = split_term(part) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            let value = unescape(value)?;
            terms.push(Term { field: field.to_string(), value, negated });
        }
        // The order of terms and the choice of `=` or `==` do not matter.
        terms.sort();
        Ok(Self { terms })
    }

    /// Checks that all fields are selectable; see [`FieldSelector::parse`].
    pub fn check_fields(&self, namespaced: bool, selectable: &[&str]) -> Result<(), SelectorError> {
        for Term { field, .. } in &self.terms {
            let known = match field.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => namespaced,
                _ => selectable.iter().any(|path| path.strip_prefix('.').unwrap_or(path) == field),
            };
            if !known {
                return Err(SelectorError(format!("field label not supported: {field}")));
            }
        }
        Ok(())
    }

    /// Adds the requirement that a field, which must be selectable, has a value.
    pub fn require(&mut self, field: &str, value: &str) {
        self.terms.push(Term { field: field.to_owned(), value: value.to_owned(), negated: false });
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Returns the name, if the selector has `metadata.name=`.
    pub fn exact_name(&self) -> Option<&str> {
        self.exact_value("metadata.name")
    }

    /// Returns the value that the selector requires for this field (`metadata.namespace`, `spec.running`), if any.
    pub fn exact_value(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.field == field && !t.negated).map(|t| t.value.as_str())
    }

    /// Replaces the value that a field is compared with.
    pub fn map_value(&mut self, field: &str, other: impl Fn(&str) -> String) {
        for term in self.terms.iter_mut().filter(|term| term.field == field) {
            term.value = other(&term.value);
        }
    }

    /// Returns the fields that must have one value, with that value: hints for an index.
    pub fn exact_values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.terms.iter().filter(|term| !term.negated).map(|term| (term.field.as_str(), term.value.as_str()))
    }

    /// Whether the selector matches the object whose fields `text_of` returns (see [`value_text`]). A missing field is the empty
    /// string.
    pub fn matches<'a>(&self, text_of: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|term| (text_of(&term.field) == term.value) != term.negated)
    }
}

impl std::fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let separator = if i > 0 { "," } else { "" };
            let operator = if term.negated { "!=" } else { "=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{separator}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

/// Splits at commas; an escaped comma is data.
fn split_terms(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

/// Splits at the first operator.
fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    term.char_indices().find_map(|(i, _)| {
        let (field, rest) = term.split_at(i);
        [("!=", true), ("==", false), ("=", false)]
            .into_iter()
            .find_map(|(operator, negated)| Some((field, rest.strip_prefix(operator)?, negated)))
    })
}

/// Removes the backslash before `\`, `,` and `=` in a value.
fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::new();
    let mut chars = value.chars();
    let sequence = |s: String| SelectorError(format!("invalid field selector: invalid escape sequence: {s}"));
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(sequence(format!("\\{c}"))),
                None => return Err(sequence("\\".to_string())),
            },
            ',' | '=' => {
                let text = format!("invalid field selector: unescaped character in value: {}", c as u32);
                return Err(SelectorError(text));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Returns the text that a field selector compares: strings unchanged, booleans and integers printed, anything else empty.
pub fn value_text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(b)) => b.to_string(),
        Some(Value::Number(n)) if !n.is_f64() => n.to_string(),
        _ => String::new(),
    }
}

/// Returns the text of a field of an object; see [`value_text`].
pub fn field_text(object: &Value, field: &str) -> String {
    value_text(field.split('.').try_fold(object, |value, step| value.get(step)))
}
