//! Rules, compiled with their schema.

use serde_json::Value;

use super::expression::parse;
use super::meter::Metered;
use crate::object::field_error::{Reason, shown};
use crate::object::schema::SchemaError;

/// A compiled rule.
#[derive(Debug)]
pub(in crate::object::schema) struct Rule {
    pub(super) expression: Metered,
    pub(super) text: String,
    pub(super) message: String,
    pub(super) message_expression: Option<Metered>,
    pub(super) reason: Option<Reason>,
    pub(super) field_path: String,
    pub(super) uses_old: bool,
    pub(super) optional_old: bool,
}

/// The maximum length of an evaluated message. Longer ones are ignored, as in Kubernetes.
pub(super) const MAX_MESSAGE_BYTES: usize = 5 * 1024;

pub(in crate::object::schema) fn compile_rules(rules: Option<&Value>, path: &str) -> Result<Vec<Rule>, SchemaError> {
    let mut out = Vec::new();
    for rule in rules.and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().trim().to_string();
        let source = text("rule");
        let compile = |source: &str| {
            parse(source).map_err(|error| SchemaError::Rule {
                path: shown(path),
                rule: source.to_string(),
                problem: error,
            })
        };
        let message_source = text("messageExpression");
        let expression = compile(&source)?;
        out.push(Rule {
            uses_old: expression.references().has_variable("oldSelf"),
            expression: expression.into(),
            message: text("message"),
            message_expression: if message_source.is_empty() { None } else { Some(compile(&message_source)?.into()) },
            reason: match text("reason").as_str() {
                "FieldValueForbidden" => Some(Reason::Forbidden),
                "FieldValueRequired" => Some(Reason::Required),
                "FieldValueDuplicate" => Some(Reason::Duplicate),
                _ => None,
            },
            field_path: normalise_field_path(&text("fieldPath")),
            optional_old: rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or(false),
            text: source,
        });
    }
    Ok(out)
}

/// Turns `.spec['a.b'].c` into `spec[a.b].c`, as Kubernetes prints paths.
fn normalise_field_path(path: &str) -> String {
    path.strip_prefix('.').unwrap_or(path).replace("['", "[").replace("']", "]")
}

pub(super) fn usable_message(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n')).then(|| text.to_string())
}
