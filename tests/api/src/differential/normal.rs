//! Replaces values that differ by nature by names that express equality and order only.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::Seen;

static AGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d+[smhdy])+$"));
static TIME: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"));
static UID: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"));
static GENERATED: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bgen-[bcdfghjklmnpqrstvwxz2456789]{5}\b"));
static QUOTED_TIME: LazyLock<Regex> = LazyLock::new(|| pattern(r"20[2-9]\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"));
static QUOTED_REVISION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(resourceVersion\\*":\\*"|precondition \(|record \()\d+(\)|\\*")"#));
// The patched object in a refusal: the original writes the members of a patch in the patch's own order.
static PATCHED: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(?s)Invalid value: "\{.*\}""#));
// The same object, shown once more where its kind is missing.
static KINDLESS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)Object 'Kind' is missing in '\{.*\}'$"));
// The prefix that the original's storage puts before its message.
static STORAGE: LazyLock<Regex> = LazyLock::new(|| pattern(r"StorageError: invalid object, .*AdditionalErrorMsg: "));
// The parser describes a fault of a YAML document; both report duplicate keys in the same way.
static YAML: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)(error decoding YAML|\byaml): .*"));
static REVISION: LazyLock<Regex> = LazyLock::new(|| pattern(r"(resource version: |current: |requested: )\d+"));

#[expect(clippy::expect_used, reason = "the patterns above are constants that a test uses")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of this file")
}

/// Normalises all answers of one sequence together: the same uid is the same name in all of them.
pub fn normalise(seen: &mut [Seen], namespace: &str) {
    let mut revisions = BTreeSet::new();
    for answer in seen.iter() {
        collect_revisions(&answer.body, &mut revisions);
    }
    let ranks = revisions.into_iter().enumerate().map(|(rank, revision)| (revision, format!("rv-{rank}"))).collect();
    let mut names = Names { namespace: namespace.to_owned(), ranks, uids: HashMap::new() };
    for answer in seen {
        for warning in &mut answer.warnings {
            *warning = names.text(warning);
        }
        order_causes(&mut answer.body);
        names.value(&mut answer.body, "");
    }
}

/// The original finds violations in the order of a hash map: an order of causes means nothing. The message repeats them.
fn order_causes(body: &mut Value) {
    if let Some(message) = body["message"].as_str()
        && let Some((head, errors)) = message.split_once(": errors:\n")
    {
        let mut lines: Vec<&str> = errors.split('\n').collect();
        // At an undeclared field the original ends its walk over a hash map: what else it has seen is chance.
        if lines.iter().any(|it| it.ends_with("field not declared in schema")) {
            lines.clear();
        }
        lines.sort_unstable();
        body["message"] = format!("{head}: errors:\n{}", lines.join("\n")).into();
    }
    if let Some(message) = body["message"].as_str()
        && let Some((head, one)) = message.split_once("): ")
        && one.ends_with(": field not declared in schema")
    {
        body["message"] = format!("{head}): errors:\n").into();
    }
    let message = body["message"].as_str().map(str::to_owned);
    let Some(causes) = body.pointer_mut("/details/causes").and_then(Value::as_array_mut) else { return };
    let repeated = |cause: &Value, message: &str| {
        let part = |key: &str| cause[key].as_str().unwrap_or_default().to_owned();
        message.contains(&format!("{}: {}", part("field"), part("message")))
    };
    let shorter = message
        .filter(|message| causes.len() > 1 && causes.iter().all(|cause| repeated(cause, message)))
        .and_then(|message| message.split_once(" is invalid: [").map(|it| format!("{} is invalid: […]", it.0)));
    causes.sort_by_key(Value::to_string);
    if let Some(message) = shorter {
        body["message"] = message.into();
    }
}

/// Objects whose names the servers have made up stand in lists in the order of those names: in that of their revisions here.
fn order_generated(items: &mut [Value]) {
    let part = |item: &Value, field: &str| {
        let metadata = item.get("metadata").or_else(|| item.pointer("/object/metadata"));
        metadata.and_then(|it| it[field].as_str()).unwrap_or_default().to_owned()
    };
    let is_generated = |item: &Value| part(item, "name") == "gen-#####";
    let rank = |item: &Value| part(item, "resourceVersion").strip_prefix("rv-").and_then(|it| it.parse::<u64>().ok());
    for run in items.chunk_by_mut(|one, other| is_generated(one) && is_generated(other)) {
        run.sort_by_key(rank);
    }
}

struct Names {
    namespace: String,
    ranks: HashMap<u64, String>,
    uids: HashMap<String, String>,
}

/// Revisions of objects; those of lists and bookmarks depend on who else writes.
fn collect_revisions(value: &Value, into: &mut BTreeSet<u64>) {
    match value {
        Value::Object(map) => {
            if is_object_metadata(map)
                && let Some(revision) = map.get("resourceVersion").and_then(revision_of)
            {
                into.insert(revision);
            }
            map.values().for_each(|value| collect_revisions(value, into));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_revisions(value, into)),
        _ => {}
    }
}

fn is_object_metadata(map: &Map<String, Value>) -> bool {
    map.contains_key("uid")
}

fn revision_of(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

impl Names {
    fn value(&mut self, value: &mut Value, key: &str) {
        match value {
            Value::Object(map) => {
                let is_metadata = is_object_metadata(map);
                // In one order, independent of the server's: names are given out in the order of values.
                let mut entries: Vec<(&String, &mut Value)> = map.iter_mut().collect();
                entries.sort_by_key(|it| it.0);
                for (key, value) in entries {
                    match key.as_str() {
                        "resourceVersion" => self.revision(value, is_metadata),
                        "continue" if value.as_str().is_some_and(|it| !it.is_empty()) => *value = "token".into(),
                        "creationTimestamp" | "deletionTimestamp" | "time" => {
                            if value.as_str().is_some_and(|it| TIME.is_match(it)) {
                                *value = "time".into();
                            }
                        }
                        _ => self.value(value, key),
                    }
                }
                if let Some(Value::Array(entries)) = map.get_mut("managedFields") {
                    // They are ordered by second: in which one a request came is chance.
                    entries.sort_by_key(|it| format!("{} {} {}", it["operation"], it["manager"], it["subresource"]));
                }
            }
            Value::Array(items) => {
                for item in items.iter_mut() {
                    self.value(item, key);
                }
                order_generated(items);
            }
            Value::String(text) => {
                *text = if key == "cells" && AGE.is_match(text) { "age".into() } else { self.text(text) };
            }
            _ => {}
        }
    }

    fn revision(&self, value: &mut Value, is_metadata: bool) {
        if let Some(number) = revision_of(value) {
            let rank = self.ranks.get(&number).filter(|_| is_metadata);
            *value = rank.map_or_else(|| "rv".into(), |rank| rank.as_str().into());
        }
    }

    fn text(&mut self, text: &str) -> String {
        let text = text.replace(&self.namespace, "NS");
        let text = GENERATED.replace_all(&text, "gen-#####");
        let text = REVISION.replace_all(&text, "${1}N");
        let text = QUOTED_REVISION.replace_all(&text, "${1}N${2}");
        let text = PATCHED.replace_all(&text, "Invalid value: \"{…}\"");
        let text = KINDLESS.replace_all(&text, "Object 'Kind' is missing in '{…}'");
        let text = STORAGE.replace_all(&text, "");
        let text = match text.ends_with(" already set in map") {
            true => text,
            false => YAML.replace_all(&text, "error decoding YAML: …"),
        };
        let text = QUOTED_TIME.replace_all(&text, "time");
        let uids = &mut self.uids;
        UID.replace_all(&text, |found: &regex::Captures<'_>| {
            let next = format!("uid-{}", uids.len());
            uids.entry(found[0].to_owned()).or_insert(next).clone()
        })
        .into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn causes_are_compared_as_a_set() {
        let cause = |field: &str| json!({"field": field, "message": "bad"});
        let mut one =
            json!({"message": "X is invalid: [b: bad, a: bad]", "details": {"causes": [cause("b"), cause("a")]}});
        let mut other =
            json!({"message": "X is invalid: [a: bad, b: bad]", "details": {"causes": [cause("a"), cause("b")]}});
        order_causes(&mut one);
        order_causes(&mut other);
        assert_eq!(one, other);
        let mut silent = json!({"message": "X is invalid: [a: bad]", "details": {"causes": [cause("a"), cause("b")]}});
        order_causes(&mut silent);
        assert_ne!(silent, other, "a message that leaves one out is no such message");
    }

    #[test]
    fn generated_names_have_no_order() {
        let item = |name: &str, rank: &str| json!({"metadata": {"name": name, "resourceVersion": rank}});
        let mut list = [
            item("b", "rv-9"),
            item("gen-#####", "rv-10"),
            item("gen-#####", "rv-2"),
            item("h", "rv-1"),
            item("i", "rv-0"),
        ];
        let sorted = [1, 3, 2, 4, 5].map(|it| list[it - 1].clone());
        order_generated(&mut list);
        assert_eq!(list, sorted);
    }

    #[test]
    fn equality_and_order_stay() {
        let object = |rv: &str, uid: &str| json!({"metadata": {"uid": uid, "resourceVersion": rv, "creationTimestamp": "2026-01-01T00:00:00Z"}});
        let (one, two) = ("0dcb6f0c-0000-4000-8000-000000000001", "0dcb6f0c-0000-4000-8000-000000000002");
        let answer = |body: Value| Seen { code: 200, warnings: vec![], media_type: String::new(), body };
        let mut seen = [
            answer(object("1009", two)),
            answer(object("980", one)),
            answer(json!({"message": format!("{two} in x-7"), "metadata": {"resourceVersion": "1010"}})),
        ];
        normalise(&mut seen, "x-7");
        assert_eq!(
            seen[0].body,
            json!({"metadata": {"uid": "uid-0", "resourceVersion": "rv-1", "creationTimestamp": "time"}})
        );
        assert_eq!(seen[1].body["metadata"]["resourceVersion"], "rv-0");
        assert_eq!(seen[2].body, json!({"message": "uid-0 in NS", "metadata": {"resourceVersion": "rv"}}));
    }
}
