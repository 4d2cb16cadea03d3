//! Bodies in YAML, and which keys occur twice in them.

use std::collections::HashSet;

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

use super::json::decode_json;
use crate::object::error::ApiError;

/// How much aliases (`*a`) of a YAML body may stand for, in scalars and brackets. With the library's million a body of 300 bytes keeps a
/// processor for a second.
const MAX_REPLAYED: usize = 50_000;

/// What stands before the lines that say which keys occur twice, in the words of the parser that Kubernetes has.
const HEAD: &str = "yaml: unmarshal errors:";

/// Reads YAML (which JSON is). Of a key that occurs twice the last value counts, as in Kubernetes.
///
/// # Errors
/// 400 for what cannot be read.
pub fn decode_yaml(body: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("yaml: the body is not UTF-8"))?;
    let mut options = serde_saphyr::Options::default();
    options.alias_limits.max_total_replayed_events = MAX_REPLAYED;
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::LastWins;
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    // By way of JSON, as in Kubernetes: numbers then have the form that they have there.
    let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    Ok(decode_json(&json)?.0)
}

/// One text with a line for each key that its mapping has already, in Kubernetes' words; none where no key occurs twice. The body is
/// one that [`decode_yaml`] has read.
pub fn duplicate_keys(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut found = Vec::new();
    // The mappings and sequences around the place that is read.
    let mut around: Vec<Collection> = Vec::new();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.ok()?;
        match event {
            Event::MappingStart(..) => around.push(Collection::mapping(span.start.line())),
            Event::SequenceStart(..) => around.push(Collection { line: span.start.line(), keys: None, key: None }),
            Event::Scalar(text, style, ..) => {
                node(&mut around, Some(key_text(&text, style)), span.start.line(), &mut found)
            }
            Event::Alias(_) => node(&mut around, None, span.start.line(), &mut found),
            Event::MappingEnd | Event::SequenceEnd => {
                let ended = around.pop()?;
                node(&mut around, None, ended.line, &mut found);
            }
            // Of several documents the first is read.
            Event::DocumentEnd => break,
            _ => {}
        }
    }
    (!found.is_empty()).then(|| format!("{HEAD}\n{}", found.join("\n")))
}

/// The warnings in a problem: of what is wrong with a YAML document each line is one.
pub fn warnings(problem: String) -> Vec<String> {
    match problem.strip_prefix(HEAD) {
        Some(lines) => lines.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect(),
        None => vec![problem],
    }
}

struct Collection {
    /// Where it begins.
    line: usize,
    /// Of a mapping.
    keys: Option<HashSet<String>>,
    /// The key whose value comes next; the inner one is missing where the key is no scalar.
    key: Option<Option<String>>,
}

impl Collection {
    fn mapping(line: usize) -> Self {
        Collection { line, keys: Some(HashSet::new()), key: None }
    }
}

/// A node has ended: it is a key, a value or an item of what is around it.
fn node(around: &mut [Collection], text: Option<String>, line: usize, found: &mut Vec<String>) {
    let Some(Collection { keys: Some(keys), key, .. }) = around.last_mut() else { return };
    match key.take() {
        None => *key = Some(text),
        Some(Some(name)) if name != "\"<<\"" => {
            if !keys.insert(name.clone()) {
                // The line is that of the value.
                found.push(format!("  line {line}: key {name} already set in map"));
            }
        }
        Some(_) => {}
    }
}

/// A key as Go writes the value that it stands for.
fn key_text(text: &str, style: ScalarStyle) -> String {
    let is_value = matches!(text, "true" | "false") || text.parse::<i64>().is_ok();
    if style == ScalarStyle::Plain && is_value { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_a_key_that_occurs_twice_the_last_value_counts_and_its_line_is_told() {
        let text = "a: 1\nb:\n  c: x\n  c:\n    d: 1\n    d: 2\nl:\n- {e: 1, e: 2}\n- e: 3\na: 3\n";
        assert_eq!(
            decode_yaml(text.as_bytes()).unwrap(),
            json!({"a": 3, "b": {"c": {"d": 2}}, "l": [{"e": 2}, {"e": 3}]})
        );
        let found = duplicate_keys(text.as_bytes()).unwrap();
        let lines = [
            "line 6: key \"d\" already set in map",
            "line 5: key \"c\" already set in map",
            "line 8: key \"e\" already set in map",
            "line 10: key \"a\" already set in map",
        ];
        assert_eq!(found, format!("yaml: unmarshal errors:\n  {}", lines.join("\n  ")));
        assert_eq!(warnings(found), lines);
        assert_eq!(duplicate_keys(b"a: {x: 1}\nb: {x: 1}\nc: [x, x]\n---\na: 1\na: 1\n"), None);
        assert_eq!(warnings("unknown field \"x\"".into()), ["unknown field \"x\""]);
    }
}
