//! Finds what a client of one API would miss in another.

use std::collections::BTreeSet;

use serde_json::Value;

use super::entries;

/// Bounds that narrow as they grow.
const LOWER: [&str; 5] = ["minimum", "minLength", "minItems", "minProperties", "exclusiveMinimum"];
/// Bounds that narrow as they shrink.
const UPPER: [&str; 5] = ["maximum", "maxLength", "maxItems", "maxProperties", "exclusiveMaximum"];
/// Keywords that may go and may not come or change.
const NARROWING: [&str; 8] = ["pattern", "format", "multipleOf", "uniqueItems", "allOf", "anyOf", "oneOf", "not"];
/// Keywords that are looked at one by one.
const JUDGED: [&str; 9] = [
    "properties",
    "required",
    "items",
    "additionalProperties",
    "enum",
    "nullable",
    "default",
    "x-kubernetes-validations",
    "x-kubernetes-selectable-fields",
];

/// The incompatible changes from `released` to `today` (both made by [`super::surface`]), each in a sentence without its full stop.
pub fn incompatible(released: &Value, today: &Value) -> Vec<String> {
    let mut found = Changes(Vec::new());
    for (path, old) in entries(released) {
        let name = path.trim_start_matches("apis/").trim_start_matches("api/");
        let Some(new) = today.get(path) else {
            found.add(name, "the group and version is gone");
            continue;
        };
        found.paths(name, &old["paths"], &new["paths"]);
        for (schema, old) in entries(&old["schemas"]) {
            let kind = format!("{name} {}", schema.rsplit('.').next().unwrap_or(schema));
            match new["schemas"].get(schema) {
                Some(new) => found.schema(&kind, old, new),
                None => found.add(&kind, "the kind is gone"),
            }
        }
    }
    found.0
}

struct Changes(Vec<String>);

impl Changes {
    fn add(&mut self, place: &str, what: &str) {
        self.0.push(format!("{place}: {what}"));
    }

    fn paths(&mut self, group_version: &str, old: &Value, new: &Value) {
        for (path, old) in entries(old) {
            let Some(new) = new.get(path) else {
                self.add(group_version, &format!("the path {path} is gone"));
                continue;
            };
            for (method, old) in entries(old) {
                let place = format!("{} {path}", method.to_uppercase());
                match (old.as_str(), new.get(method).and_then(Value::as_str)) {
                    (_, None) => self.add(&place, "the operation is gone"),
                    (Some(old), Some(new)) => self.operation(&place, old, new),
                    (None, Some(_)) => self.add(&place, "the released operation cannot be read"),
                }
            }
        }
    }

    /// `list ?continue,limit < application/json`
    fn operation(&mut self, place: &str, old: &str, new: &str) {
        let parts = |line: &str| -> (String, BTreeSet<String>, BTreeSet<String>) {
            let (line, types) = line.split_once(" < ").unwrap_or((line, ""));
            let (action, query) = line.split_once(" ?").unwrap_or((line, ""));
            let set = |list: &str| list.split(',').filter(|it| !it.is_empty()).map(str::to_owned).collect();
            (action.to_owned(), set(query), set(types))
        };
        let ((old_action, old_query, old_types), (action, query, types)) = (parts(old), parts(new));
        if old_action != action {
            self.add(place, &format!("the action changed from {old_action} to {action}"));
        }
        for name in old_query.difference(&query) {
            self.add(place, &format!("the parameter {name} is gone"));
        }
        for name in old_types.difference(&types) {
            self.add(place, &format!("bodies of {name} are no longer taken"));
        }
    }

    fn schema(&mut self, place: &str, old: &Value, new: &Value) {
        let (Some(old_map), Some(new_map)) = (old.as_object(), new.as_object()) else {
            if old != new {
                self.add(place, &format!("the schema changed from {old} to {new}"));
            }
            return;
        };
        self.fields(place, old, new);
        for key in ["items", "additionalProperties"] {
            let below = if key == "items" { format!("{place}[]") } else { format!("{place}.*") };
            match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) => self.schema(&below, old, new),
                (Some(_), None) => self.add(&below, "the former value is gone"),
                _ => {}
            }
        }
        self.values(place, old, new);
        self.bounds(place, old, new);
        let judged = |key: &&String| {
            let key = key.as_str();
            [&JUDGED[..], &LOWER, &UPPER, &NARROWING].iter().any(|keys| keys.contains(&key))
        };
        // All other parts of a schema (its type, references, how lists merge) may not change at all.
        let keys: BTreeSet<&String> = old_map.keys().chain(new_map.keys()).filter(|key| !judged(key)).collect();
        for key in keys {
            self.changed(place, key, old.get(key), new.get(key));
        }
    }

    fn fields(&mut self, place: &str, old: &Value, new: &Value) {
        for (name, old_field) in entries(&old["properties"]) {
            let place = field(place, name);
            match new["properties"].get(name) {
                Some(new_field) => self.schema(&place, old_field, new_field),
                None => self.add(&place, "the field is gone"),
            }
        }
        let required = |of: &Value| texts(&of["required"]);
        for name in required(new).difference(&required(old)) {
            // A field with a default is optional.
            if new["properties"][name].get("default").is_none() {
                self.add(&field(place, name), "the field is now required");
            }
        }
    }

    /// Values, rules and selectable fields.
    fn values(&mut self, place: &str, old: &Value, new: &Value) {
        match (old["enum"].as_array(), new["enum"].as_array()) {
            (None, Some(_)) => self.add(place, &format!("only {} are allowed now", new["enum"])),
            (Some(old), Some(new)) => {
                for value in old.iter().filter(|it| !new.contains(it)) {
                    self.add(place, &format!("the value {value} is gone"));
                }
            }
            _ => {}
        }
        let rules = |of: &Value| -> BTreeSet<String> {
            let rules = of["x-kubernetes-validations"].as_array().into_iter().flatten();
            rules.filter_map(|it| it["rule"].as_str()).map(str::to_owned).collect()
        };
        for rule in rules(new).difference(&rules(old)) {
            self.add(place, &format!("there is a new rule, `{rule}`"));
        }
        let selectable = |of: &Value| -> BTreeSet<String> {
            let fields = of["x-kubernetes-selectable-fields"].as_array().into_iter().flatten();
            fields.map(|it| it["fieldPath"].as_str().map_or(it.to_string(), str::to_owned)).collect()
        };
        for name in selectable(old).difference(&selectable(new)) {
            self.add(place, &format!("{name} can no longer be selected by"));
        }
        if old["nullable"] == true && new["nullable"] != true {
            self.add(place, "null is no longer allowed");
        }
        if old.get("default").is_some() {
            self.changed(place, "default", old.get("default"), new.get("default"));
        }
    }

    fn bounds(&mut self, place: &str, old: &Value, new: &Value) {
        for (keys, grows) in [(LOWER, true), (UPPER, false)] {
            for key in keys {
                let (was, is) = (old.get(key), new.get(key));
                let is_narrower = match (was.and_then(Value::as_f64), is.and_then(Value::as_f64)) {
                    (Some(was), Some(is)) => {
                        if grows {
                            is > was
                        } else {
                            is < was
                        }
                    }
                    (None, Some(_)) => true,
                    // OpenAPI 3.0 marks an exclusive bound with a boolean.
                    _ => is == Some(&Value::Bool(true)) && was != is,
                };
                if is_narrower {
                    self.changed(place, key, was, is);
                }
            }
        }
        for key in NARROWING {
            if new.get(key).is_some() {
                self.changed(place, key, old.get(key), new.get(key));
            }
        }
    }

    fn changed(&mut self, place: &str, key: &str, was: Option<&Value>, is: Option<&Value>) {
        let shown = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
        if was != is {
            self.add(place, &format!("{key} changed from {} to {}", shown(was), shown(is)));
        }
    }
}

/// `group/version Kind field.field`
fn field(place: &str, name: &str) -> String {
    let separator = if place.split(' ').count() > 2 { '.' } else { ' ' };
    format!("{place}{separator}{name}")
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
