//! One compiled node of a structural schema.

use super::SchemaError;
use super::cel::Rule;
use super::types::{ListType, MapType, Type};
use crate::object::field_error::shown;
use indexmap::IndexMap;
use regex::Regex;
use serde_json::Value;

/// One compiled node.
#[derive(Debug, Default)]
pub struct Node {
    /// The JSON type; none if any is allowed.
    pub kind: Option<Type>,
    /// Declared fields.
    pub properties: IndexMap<String, Node>,
    /// Schema of a list's items.
    pub items: Option<Box<Node>>,
    /// Schema of a map's values. `additionalProperties: true` is a node that allows anything.
    pub additional: Option<Box<Node>>,
    /// How a list merges.
    pub list_type: ListType,
    /// How a map merges.
    pub map_type: MapType,
    /// Unknown fields are kept.
    pub preserve_unknown: bool,
    /// An integer or a string.
    pub int_or_string: bool,
    /// A whole Kubernetes object.
    pub embedded: bool,
    /// The default value.
    pub default: Option<Value>,
    /// Null is allowed.
    pub nullable: bool,
    /// `additionalProperties: true`, whose unknown contents are pruned nevertheless.
    pub(super) additional_is_bool: bool,
    /// The schema states `x-kubernetes-list-type`.
    pub(super) list_type_given: bool,
    pub(super) checks: Checks,
    pub(super) rules: Vec<Rule>,
    /// Whether a node below is an embedded resource.
    pub(super) has_embedded: bool,
    /// Whether this node or one below has rules; otherwise the walk for rules stops here.
    pub(super) has_rules: bool,
}

impl Node {
    /// Compiles a schema of a part of an object.
    ///
    /// # Errors
    /// If it is not structural.
    pub fn compile(schema: &Value) -> Result<Node, SchemaError> {
        compile_node(schema, "", 0)
    }

    /// Returns the `format`, empty if none.
    pub fn format(&self) -> &str {
        &self.checks.format
    }

    /// `additionalProperties: true`.
    pub fn additional_is_any(&self) -> bool {
        self.additional_is_bool
    }
}

/// The checks of a value beyond its type and structure.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// As written.
    pub format: String,
    /// The format if values are checked against it, else empty.
    pub checked_format: String,
    pub allowed: Vec<Value>,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Regex>,
    /// As written: `pattern` may have been translated.
    pub pattern_text: String,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub required: Vec<String>,
    pub forbids_additional: bool,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
}

const MAX_DEPTH: usize = 128;

pub(super) fn compile(schema: &Value) -> Result<Node, SchemaError> {
    let mut root = compile_node(schema, "", 0)?;
    root.embedded = true;
    for field in ["apiVersion", "kind"] {
        root.properties
            .entry(field.to_string())
            .or_insert_with(|| Node { kind: Some(Type::String), ..Node::default() });
    }
    let metadata = root.properties.entry("metadata".to_string()).or_default();
    metadata.kind = Some(Type::Object);
    Ok(root)
}

fn compile_node(schema: &Value, path: &str, depth: usize) -> Result<Node, SchemaError> {
    let Some(map) = schema.as_object() else {
        return Err(problem(path, "must be an object"));
    };
    if depth > MAX_DEPTH {
        return Err(problem(path, "nested too deep"));
    }
    for unsupported in ["$ref", "patternProperties", "additionalItems", "definitions", "dependencies"] {
        if map.contains_key(unsupported) {
            return Err(problem(path, &format!("{unsupported} is not allowed in a structural schema")));
        }
    }
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let kind = match map.get("type").and_then(Value::as_str) {
        None | Some("") => None,
        Some(text) => Some(Type::parse(text).ok_or_else(|| problem(path, &format!("type {text:?} is not known")))?),
    };
    let list_type_given = map.contains_key("x-kubernetes-list-type");
    let list_type = match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
        None | Some("atomic") => ListType::Atomic,
        Some("set") => ListType::Set,
        Some("map") => {
            let keys: Vec<String> = strings(map.get("x-kubernetes-list-map-keys"));
            if keys.is_empty() {
                return Err(problem(path, "x-kubernetes-list-map-keys must name the keys of a list of type map"));
            }
            ListType::Map(keys)
        }
        Some(other) => return Err(problem(path, &format!("x-kubernetes-list-type {other:?} is not known"))),
    };
    let mut node = Node {
        kind,
        list_type,
        list_type_given,
        map_type: match map.get("x-kubernetes-map-type").and_then(Value::as_str) {
            Some("atomic") => MapType::Atomic,
            _ => MapType::Granular,
        },
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        embedded: flag("x-kubernetes-embedded-resource"),
        default: map.get("default").filter(|v| !v.is_null()).cloned(),
        nullable: flag("nullable"),
        ..Node::default()
    };
    if let Some(properties) = map.get("properties").and_then(Value::as_object) {
        for (name, schema) in properties {
            let child = compile_node(schema, &format!("{path}.properties[{name}]"), depth + 1)?;
            node.properties.insert(name.clone(), child);
        }
    }
    if let Some(items) = map.get("items") {
        node.items = Some(Box::new(compile_node(items, &format!("{path}.items"), depth + 1)?));
    }
    match map.get("additionalProperties") {
        None => {}
        Some(Value::Bool(true)) => {
            node.additional = Some(Box::default());
            node.additional_is_bool = true;
        }
        Some(Value::Bool(false)) => node.checks.forbids_additional = true,
        Some(schema) => {
            let child = compile_node(schema, &format!("{path}.additionalProperties"), depth + 1)?;
            node.additional = Some(Box::new(child));
        }
    }
    compile_checks(map, &mut node.checks, path, depth)?;
    node.checks.checked_format = super::formats::supported(kind, &node.checks.format).to_string();
    node.rules = super::cel::compile_rules(map.get("x-kubernetes-validations"), path)?;
    let mut children = node.properties.values().chain(node.items.as_deref()).chain(node.additional.as_deref());
    node.has_embedded = children.any(|n| n.embedded || n.has_embedded);
    node.has_rules = !node.rules.is_empty()
        || node.properties.values().any(|n| n.has_rules)
        || node.items.as_ref().is_some_and(|n| n.has_rules)
        || node.additional.as_ref().is_some_and(|n| n.has_rules)
        || node.checks.all_of.iter().any(|n| n.has_rules);
    Ok(node)
}

fn compile_checks(
    map: &serde_json::Map<String, Value>,
    checks: &mut Checks,
    path: &str,
    depth: usize,
) -> Result<(), SchemaError> {
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
    let number = |key: &str| map.get(key).and_then(Value::as_f64);
    let count = |key: &str| map.get(key).and_then(|v| v.as_u64().or(v.as_f64().map(|f| f as u64)));
    checks.format = map.get("format").and_then(Value::as_str).unwrap_or_default().to_string();
    checks.allowed = map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default();
    checks.minimum = number("minimum");
    checks.exclusive_minimum = flag("exclusiveMinimum");
    checks.maximum = number("maximum");
    checks.exclusive_maximum = flag("exclusiveMaximum");
    checks.multiple_of = number("multipleOf");
    checks.min_length = count("minLength");
    checks.max_length = count("maxLength");
    checks.min_items = count("minItems");
    checks.max_items = count("maxItems");
    checks.unique_items = flag("uniqueItems");
    checks.min_properties = count("minProperties");
    checks.max_properties = count("maxProperties");
    checks.required = strings(map.get("required"));
    if let Some(pattern) = map.get("pattern").and_then(Value::as_str).filter(|p| !p.is_empty()) {
        let regex = super::pattern::compile(pattern).map_err(|source| SchemaError::Pattern {
            path: shown(path),
            pattern: pattern.to_string(),
            source: Box::new(source),
        })?;
        checks.pattern = Some(regex);
        checks.pattern_text = pattern.to_string();
    }
    for (key, nodes) in [("allOf", &mut checks.all_of), ("anyOf", &mut checks.any_of), ("oneOf", &mut checks.one_of)] {
        for (i, schema) in map.get(key).and_then(Value::as_array).into_iter().flatten().enumerate() {
            nodes.push(compile_node(schema, &format!("{path}.{key}[{i}]"), depth + 1)?);
        }
    }
    if let Some(schema) = map.get("not") {
        checks.not = Some(Box::new(compile_node(schema, &format!("{path}.not"), depth + 1)?));
    }
    Ok(())
}

fn strings(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_string)).collect()
}

fn problem(path: &str, problem: &str) -> SchemaError {
    SchemaError::NotStructural { path: shown(path), problem: problem.to_string() }
}
