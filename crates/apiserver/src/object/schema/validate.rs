//! Validates values against the schema: types, limits, enums, required fields. Messages are those of kube-openapi's validator.
//!
//! An error at a value that the update does not change is dropped ("ratcheting"): an object that was valid under an older
//! schema stays editable.

use super::node::Checks;
use super::path::Path;
use super::{ListType, Node, Type, formats};
use crate::object::field_error::{Errors, FieldError, Reason};
use crate::object::go_text::{go_float, go_json, go_quote};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

/// Errors of one value, and the number of checks that applied to it: among failed alternatives, the one with the most applicable
/// checks explains the failure best.
#[derive(Default)]
struct Outcome {
    errors: Errors,
    applied: usize,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.errors.extend(other.errors);
        self.applied += other.applied;
    }
}

pub(super) fn validate(object: &Value, old: Option<&Value>, root: &Node) -> Vec<FieldError> {
    let mut errors = check(object, old, root, &Path::ROOT).errors.list;
    if errors.len() > 1 {
        // Several alternatives may find the same mistake.
        let mut seen = HashSet::new();
        errors.retain(|error| {
            let value = error.value.as_ref().map(go_json);
            seen.insert((error.path.clone(), error.reason, error.detail.clone(), value))
        });
    }
    errors
}

fn check(value: &Value, old: Option<&Value>, node: &Node, path: &Path<'_>) -> Outcome {
    let mut out = Outcome::default();
    check_type(value, node, path, &mut out);
    if !value.is_null() {
        alternatives(value, old, &node.checks, path, &mut out);
        match value {
            Value::String(text) => check_string(text, &node.checks, path, &mut out),
            Value::Number(number) => check_number(number, node, path, &mut out),
            Value::Array(items) => check_items(items, old, node, path, &mut out),
            _ => {}
        }
    }
    check_enum(value, &node.checks, path, &mut out);
    if let Value::Object(map) = value {
        check_object(map, old, node, path, &mut out);
    }
    out.applied += 1;
    if old == Some(value) {
        out.errors.clear();
    }
    out
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_type(value: &Value, node: &Node, path: &Path<'_>, out: &mut Outcome) {
    let expected = match node.kind {
        _ if node.int_or_string => "integer,string",
        Some(kind) => kind.as_str(),
        None => return,
    };
    out.applied += 1;
    let fits = match value {
        Value::Null => node.nullable,
        Value::Number(_) | Value::String(_) if node.int_or_string => value.is_string() || is_whole(value),
        Value::Number(_) => match node.kind {
            Some(Type::Number) => true,
            Some(Type::Integer) => is_whole(value),
            _ => false,
        },
        other => node.kind.is_some_and(|kind| kind.as_str() == type_name(other)),
    };
    if fits {
        out.applied += 1;
        return;
    }
    let format = node.checks.checked_format.as_str();
    let is_text = node.kind == Some(Type::String);
    // Where a format is given, Kubernetes names the format in Go's terms, and accepts lists as strings.
    let (expected, found) = match value {
        Value::Array(_) if is_text && !format.is_empty() => return,
        Value::Null | Value::String(_) | Value::Array(_) => (expected, type_name(value)),
        _ if format.is_empty() => (expected, type_name(value)),
        Value::Number(n) if n.is_f64() => (format, "float64"),
        Value::Number(_) => (format, "int64"),
        _ => (format, ""),
    };
    let message = format!("{path} in body must be of type {expected}: {}", go_quote(found));
    out.errors.push(FieldError::type_invalid(path.shown(), Value::from(found), message));
}

/// Whether a number has no fraction, however it is written.
fn is_whole(value: &Value) -> bool {
    match value.as_number() {
        Some(n) if n.is_f64() => n.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < 9.2e18),
        Some(_) => true,
        None => false,
    }
}

fn invalid(path: &Path<'_>, value: Value, rest: String) -> FieldError {
    FieldError::invalid(path.shown(), value, format!("{path} in body {rest}"))
}

fn check_string(text: &str, checks: &Checks, path: &Path<'_>, out: &mut Outcome) {
    out.applied += 1;
    let length = || text.chars().count() as u64;
    if let Some(max) = checks.max_length
        && length() > max
    {
        out.errors.push(FieldError::too_long(path.shown(), max as usize));
    } else if let Some(min) = checks.min_length
        && length() < min
    {
        out.errors.push(invalid(path, Value::from(text), format!("should be at least {min} chars long")));
    } else if let Some(pattern) = &checks.pattern
        && !pattern.is_match(text)
    {
        out.errors.push(invalid(path, Value::from(text), format!("should match '{}'", checks.pattern_text)));
    }
    if !checks.checked_format.is_empty() {
        out.applied += 1;
        let format = &checks.checked_format;
        if !formats::is_valid(format, text) {
            let message = format!("{path} in body must be of type {format}: {}", go_quote(text));
            out.errors.push(FieldError::type_invalid(path.shown(), Value::from(text), message));
        }
    }
}

/// Returns the error if a number does not fit the integer type and format of the schema.
fn range_error(number: &serde_json::Number, node: &Node, path: &Path<'_>) -> Option<String> {
    let format = node.checks.checked_format.as_str();
    let int = number.as_i64();
    let fits = match (node.kind?, format) {
        (Type::Integer, "int32") => int.is_some_and(|i| i32::try_from(i).is_ok()),
        (Type::Integer, _) => int.is_some() || is_whole(&Value::Number(number.clone())),
        (Type::Number, "float") => number.as_f64().is_some_and(|f| f.abs() <= f64::from(f32::MAX)),
        _ => true,
    };
    let of = if format.is_empty() { "(default format)".to_string() } else { format!("with format {format}") };
    (!fits).then(|| format!("Checked value must be of type {} {of} in {path}", node.kind.map_or("", Type::as_str)))
}

/// Integers are compared with the integral part of a limit, as Kubernetes does.
fn check_number(number: &serde_json::Number, node: &Node, path: &Path<'_>, out: &mut Outcome) {
    out.applied += 2;
    let checks = &node.checks;
    let value = Value::Number(number.clone());
    let float = number.as_f64().unwrap_or_default();
    let int = number.as_i64();
    // The sign of the difference between value and limit.
    let compare = |limit: f64| match int {
        Some(int) => int.cmp(&(limit as i64)),
        None => float.total_cmp(&limit),
    };
    if let Some(factor) = checks.multiple_of {
        match int.map(|int| (int, factor as i64)) {
            // An integer is compared with the integral part of the factor, as Kubernetes does, even if that is zero.
            Some((_, whole @ ..=0)) => {
                let text = format!("factor MultipleOf declared for {path} must be positive: {whole}");
                out.errors.push(FieldError::invalid(path.shown(), Value::from(whole), text));
            }
            Some((int, whole)) if int % whole == 0 => {}
            None if is_json_integer(if factor < 1.0 { 1.0 / factor * float } else { float / factor }) => {}
            _ => {
                let limit = if int.is_some() { (factor as i64).to_string() } else { go_float(factor) };
                out.errors.push(invalid(path, value.clone(), format!("should be a multiple of {limit}")));
            }
        }
    }
    let mut report = |comparison: &str, limit: f64| {
        let limit = if int.is_some() { (limit as i64).to_string() } else { go_float(limit) };
        out.errors.push(invalid(path, value.clone(), format!("should be {comparison} {limit}")));
    };
    if let Some(min) = checks.minimum {
        let order = compare(min);
        if order.is_lt() || (checks.exclusive_minimum && order.is_eq()) {
            report(if checks.exclusive_minimum { "greater than" } else { "greater than or equal to" }, min);
        }
    }
    if let Some(max) = checks.maximum {
        let order = compare(max);
        if order.is_gt() || (checks.exclusive_maximum && order.is_eq()) {
            report(if checks.exclusive_maximum { "less than" } else { "less than or equal to" }, max);
        }
    }
    if let Some(problem) = range_error(number, node, path) {
        out.errors.push(FieldError::invalid("<nil>", Value::from(""), problem));
    }
}

/// Whether a float is an integer that JSON holds exactly, as go-openapi decides it.
fn is_json_integer(float: f64) -> bool {
    const LIMIT: f64 = 9_007_199_254_740_991.0;
    if !float.is_finite() || float.abs() > LIMIT {
        return false;
    }
    let whole = float.trunc();
    let difference = (float - whole).abs();
    difference == 0.0 || (float != 0.0 && whole != 0.0 && difference / (float.abs() + whole.abs()).min(f64::MAX) < 1e-9)
}

fn check_enum(value: &Value, checks: &Checks, path: &Path<'_>, out: &mut Outcome) {
    out.applied += 1;
    // Kubernetes converts a number to the type of the allowed value before it compares.
    let same = |allowed: &Value| match (allowed.as_i64(), allowed.as_f64(), value.as_f64()) {
        (Some(allowed), _, Some(value)) => allowed == value as i64,
        (None, Some(allowed), Some(value)) => allowed == value,
        _ => allowed == value,
    };
    if checks.allowed.is_empty() || checks.allowed.iter().any(same) {
        return;
    }
    let supported: Vec<String> = checks
        .allowed
        .iter()
        .map(|v| v.as_str().map(str::to_string).unwrap_or_else(|| crate::object::go_text::go_json(v)))
        .collect();
    out.errors.push(FieldError::not_supported(path.shown(), value.clone(), &supported));
}

fn check_items(items: &[Value], old: Option<&Value>, node: &Node, path: &Path<'_>, out: &mut Outcome) {
    out.applied += 2;
    if let Some(child) = &node.items {
        let old_items = OldItems::of(node, old);
        for (i, item) in items.iter().enumerate() {
            let old_item = old_items.of_item(i, item);
            out.merge(check(item, old_item, child, &path.index(i)));
        }
    }
    let checks = &node.checks;
    if let Some(min) = checks.min_items
        && (items.len() as u64) < min
    {
        let count = Value::from(items.len());
        out.errors.push(invalid(path, count, format!("should have at least {min} items")));
    }
    if let Some(max) = checks.max_items
        && items.len() as u64 > max
    {
        out.errors.push(FieldError::too_many(path.shown(), items.len(), max as usize));
    }
    let mut seen = HashSet::new();
    if checks.unique_items && !items.iter().all(|item| seen.insert(go_json(item))) {
        out.errors.push(invalid(path, Value::from(""), "shouldn't contain duplicates".to_string()));
    }
}

/// The old items from which the new ones of a list descend: by keys in a list of type map, by position where no type is given.
pub(super) enum OldItems<'a> {
    /// None is known.
    Unknown,
    ByPosition(&'a [Value]),
    ByKeys(&'a [String], HashMap<String, &'a Value>),
}

impl<'a> OldItems<'a> {
    /// Those of the list that `old` is.
    pub(super) fn of(node: &'a Node, old: Option<&'a Value>) -> Self {
        let Some(old) = old.and_then(Value::as_array) else { return OldItems::Unknown };
        match &node.list_type {
            ListType::Map(keys) => {
                let mut by_keys = HashMap::with_capacity(old.len());
                for item in old {
                    by_keys.entry(key_text(keys, item)).or_insert(item);
                }
                OldItems::ByKeys(keys, by_keys)
            }
            ListType::Atomic if !node.list_type_given => OldItems::ByPosition(old),
            _ => OldItems::Unknown,
        }
    }

    /// The one from which an item descends.
    pub(super) fn of_item(&self, index: usize, item: &Value) -> Option<&'a Value> {
        match self {
            OldItems::Unknown => None,
            OldItems::ByPosition(old) => old.get(index),
            OldItems::ByKeys(keys, by_keys) => by_keys.get(&key_text(keys, item)).copied(),
        }
    }
}

/// The keys of an item of a list of type map, as text.
fn key_text(keys: &[String], item: &Value) -> String {
    let parts = keys.iter().map(|key| item.get(key).map_or_else(|| "-".to_owned(), go_json));
    parts.collect::<Vec<_>>().join(",")
}

fn check_object(map: &Map<String, Value>, old: Option<&Value>, node: &Node, path: &Path<'_>, out: &mut Outcome) {
    out.applied += 1;
    let checks = &node.checks;
    if let Some(min) = checks.min_properties
        && (map.len() as u64) < min
    {
        let count = Value::from(map.len());
        out.errors.push(invalid(path, count, format!("should have at least {min} properties")));
    }
    if let Some(max) = checks.max_properties
        && map.len() as u64 > max
    {
        out.errors.push(FieldError::too_many(path.shown(), map.len(), max as usize));
    }
    let old_entry = |name: &str| old.and_then(|o| o.get(name));
    for (name, entry) in map {
        if node.properties.contains_key(name) {
            continue;
        }
        if let Some(child) = &node.additional {
            out.merge(check(entry, old_entry(name), child, &path.field(name)));
        } else if checks.forbids_additional {
            let message = format!("{path}.{name} in body is a forbidden property");
            out.errors.push(FieldError::invalid(path.shown(), Value::from(name.as_str()), message));
        }
    }
    for (name, child) in &node.properties {
        if let Some(entry) = map.get(name) {
            out.merge(check(entry, old_entry(name), child, &path.field(name)));
        }
    }
    for name in &checks.required {
        if !map.contains_key(name) {
            out.errors.push(FieldError::required(path.field(name).to_string(), ""));
        }
    }
}

/// anyOf, oneOf, allOf, not.
fn alternatives(value: &Value, old: Option<&Value>, checks: &Checks, path: &Path<'_>, out: &mut Outcome) {
    out.applied += 2;
    // Kubernetes reports these without a path; the message contains it.
    let composite = |text: String| FieldError {
        path: "<nil>".to_string(),
        reason: Reason::Invalid,
        value: Some(Value::from("")),
        detail: text,
    };
    let run = |nodes: &[Node]| -> Vec<Outcome> { nodes.iter().map(|n| check(value, old, n, path)).collect() };
    let quoted = || format!("\"{path}\"");

    if !checks.any_of.is_empty() {
        let mut outcomes = run(&checks.any_of);
        match outcomes.iter().position(|o| o.errors.is_empty()) {
            Some(i) => out.merge(outcomes.swap_remove(i)),
            None => {
                let text = format!("{} must validate at least one schema (anyOf)", quoted());
                out.errors.push(composite(text));
                best(outcomes).into_iter().for_each(|o| out.merge(o));
            }
        }
    }
    if !checks.one_of.is_empty() {
        let mut outcomes = run(&checks.one_of);
        let valid = outcomes.iter().filter(|o| o.errors.is_empty()).count();
        let text =
            |found: String| composite(format!("{} must validate one and only one schema (oneOf). {found}", quoted()));
        match valid {
            0 => {
                out.errors.push(text("Found none valid".to_string()));
                best(outcomes).into_iter().for_each(|o| out.merge(o));
            }
            1 => {
                if let Some(i) = outcomes.iter().position(|o| o.errors.is_empty()) {
                    out.merge(outcomes.swap_remove(i));
                }
            }
            n => out.errors.push(text(format!("Found {n} valid alternatives"))),
        }
    }
    if !checks.all_of.is_empty() {
        let outcomes = run(&checks.all_of);
        let valid = outcomes.iter().filter(|o| o.errors.is_empty()).count();
        let complete = valid == outcomes.len();
        outcomes.into_iter().for_each(|o| out.merge(o));
        if !complete {
            let rest = if valid == 0 { ". None validated" } else { "" };
            out.errors.push(composite(format!("{} must validate all the schemas (allOf){rest}", quoted())));
        }
    }
    if let Some(node) = &checks.not
        && check(value, None, node, path).errors.is_empty()
    {
        out.errors.push(composite(format!("{} must not validate the schema (not)", quoted())));
    }
}

fn best(outcomes: Vec<Outcome>) -> Option<Outcome> {
    outcomes.into_iter().reduce(|best, next| if next.applied > best.applied { next } else { best })
}
