//! Bodies in YAML, and their duplicate keys.

use std::collections::HashSet;

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

use super::json::decode_json;
use crate::object::error::ApiError;
use crate::object::problems::MAX_PROBLEMS;

/// The number of scalars and brackets to which aliases (`*a`) of a YAML body may expand. With the library's default of a million,
/// a body of 300 bytes keeps a processor busy for a second.
const MAX_REPLAYED: usize = 50_000;

/// The heading before the lines about duplicate keys, as Kubernetes' parser writes it.
const HEAD: &str = "yaml: unmarshal errors:";

/// Decodes YAML (of which JSON is a subset). The last value of a duplicate key counts, as in Kubernetes.
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
    // The value is converted through JSON, as in Kubernetes, so that numbers have the same form.
    let json = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    Ok(decode_json(&json)?.0)
}

/// Returns one text with a line for each duplicate key, in Kubernetes' wording; `None` if there is none. [`decode_yaml`] must
/// have accepted the body.
pub fn duplicate_keys(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let mut found = Vec::new();
    // The mappings and sequences around the current position.
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
            // Only the first of several documents is read.
            Event::DocumentEnd => break,
            _ => {}
        }
    }
    (!found.is_empty()).then(|| format!("{HEAD}\n{}", found.join("\n")))
}

/// Splits a problem into warnings: each line about a YAML document is one.
pub fn warnings(problem: String) -> Vec<String> {
    match problem.strip_prefix(HEAD) {
        Some(lines) => lines.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect(),
        None => vec![problem],
    }
}

struct Collection {
    /// The line where it begins.
    line: usize,
    /// The keys of a mapping.
    keys: Option<HashSet<String>>,
    /// The key whose value comes next; the inner one is missing where the key is no scalar.
    key: Option<Option<String>>,
}

impl Collection {
    fn mapping(line: usize) -> Self {
        Collection { line, keys: Some(HashSet::new()), key: None }
    }
}

/// Handles the end of a node, which is a key, a value or an item of the collection around it.
fn node(around: &mut [Collection], text: Option<String>, line: usize, found: &mut Vec<String>) {
    let Some(Collection { keys: Some(keys), key, .. }) = around.last_mut() else { return };
    match key.take() {
        None => *key = Some(text),
        Some(Some(name)) if name != "\"<<\"" => {
            if !keys.insert(name.clone()) && found.len() < MAX_PROBLEMS {
                // The line is that of the value.
                found.push(format!("  line {line}: key {name} already set in map"));
            }
        }
        Some(_) => {}
    }
}

/// Returns a key as Go prints its value.
fn key_text(text: &str, style: ScalarStyle) -> String {
    let is_value = matches!(text, "true" | "false") || text.parse::<i64>().is_ok();
    if style == ScalarStyle::Plain && is_value { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn for_a_duplicate_key_the_last_value_counts_and_its_line_is_reported() {
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
