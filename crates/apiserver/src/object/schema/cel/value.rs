//! Converts JSON values to CEL values, typed by the schema.

use super::expression::{BASE, parse};
use crate::object::schema::{Node, Type};
use kube_cel::cel::Value as CelValue;
use kube_cel::cel::objects::Key;
use kube_cel::cel::parser::Expression;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

static TIMESTAMP: LazyLock<Option<Expression>> = LazyLock::new(|| parse("timestamp(text)").ok());
static DURATION: LazyLock<Option<Expression>> = LazyLock::new(|| parse("duration(text)").ok());

/// The schema of values without one.
static ANYTHING: LazyLock<Node> = LazyLock::new(Node::default);

fn string(text: &str) -> CelValue {
    CelValue::String(Arc::new(text.to_string()))
}

/// Converts a JSON value to CEL by its schema.
pub(super) fn to_cel(value: &Value, node: &Node) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(b) => CelValue::Bool(*b),
        Value::Number(n) => match node.kind {
            Some(Type::Number) => CelValue::Float(n.as_f64().unwrap_or_default()),
            Some(Type::Integer) => CelValue::Int(n.as_i64().unwrap_or(n.as_f64().unwrap_or_default() as i64)),
            _ => match n.as_i64() {
                Some(int) => CelValue::Int(int),
                None => CelValue::Float(n.as_f64().unwrap_or_default()),
            },
        },
        Value::String(text) => string_to_cel(text, node),
        Value::Array(items) => {
            let child = node.items.as_deref().unwrap_or(&ANYTHING);
            CelValue::List(Arc::new(items.iter().map(|item| to_cel(item, child)).collect()))
        }
        Value::Object(entries) => {
            // Keys of a map are data; names of fields are escaped.
            let is_map = node.additional.is_some() || (node.properties.is_empty() && node.kind.is_none());
            let mut map: HashMap<Key, CelValue> = HashMap::with_capacity(entries.len());
            for (name, entry) in entries {
                let child = node.properties.get(name).or(node.additional.as_deref());
                if child.is_none() && node.kind.is_some() && !node.properties.is_empty() && !node.embedded {
                    // Unknown fields that are preserved are not visible to rules.
                    continue;
                }
                // A null where null is allowed counts as absent.
                if entry.is_null() && node.properties.contains_key(name) {
                    continue;
                }
                let key = if is_map { name.clone() } else { escape(name) };
                map.insert(Key::String(Arc::new(key)), to_cel(entry, child.unwrap_or(&ANYTHING)));
            }
            CelValue::Map(kube_cel::cel::objects::Map { map: Arc::new(map) })
        }
    }
}

fn string_to_cel(text: &str, node: &Node) -> CelValue {
    let convert = |expression: &LazyLock<Option<Expression>>| {
        let mut context = BASE.new_inner_scope();
        context.add_variable_from_value("text", string(text));
        expression.as_ref().and_then(|e| context.resolve(e).ok())
    };
    let converted = match node.checks.format.as_str() {
        "date-time" | "datetime" => convert(&TIMESTAMP),
        "date" => {
            let mut context = BASE.new_inner_scope();
            context.add_variable_from_value("text", string(&format!("{text}T00:00:00Z")));
            TIMESTAMP.as_ref().and_then(|e| context.resolve(e).ok())
        }
        "duration" => convert(&DURATION),
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|b| CelValue::Bytes(Arc::new(b)))
        }
        _ => None,
    };
    converted.unwrap_or_else(|| string(text))
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Escapes field names that are not CEL identifiers, as Kubernetes does.
fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}
