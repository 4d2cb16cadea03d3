//! Rules, compiled with their schema.

use kube_cel::cel::common::ast::{Expr, LiteralValue, operators};
use kube_cel::cel::parser::Expression;
use serde_json::Value;

use super::expression::parse;
use super::meter::Metered;
use super::tree::parts;
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
    /// Whether it looks at the field `status`, or at all of the value.
    pub(super) reads_status: bool,
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
            reads_status: reads(&expression, "status"),
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

/// Whether an expression looks at a field of `self` or `oldSelf`, or at all of them.
fn reads(expression: &Expression, field: &str) -> bool {
    let is_self =
        |expression: &Expression| matches!(&expression.expr, Expr::Ident(name) if name == "self" || name == "oldSelf");
    match &expression.expr {
        Expr::Ident(_) => is_self(expression),
        Expr::Select(select) if is_self(&select.operand) => select.field == field,
        Expr::Call(call) => match call.args.as_slice() {
            [value, Expression { expr: Expr::Literal(LiteralValue::String(name)), .. }]
                if is_self(value) && matches!(call.func_name.as_str(), operators::INDEX | operators::OPT_INDEX) =>
            {
                name.inner() == field
            }
            _ => parts(expression).into_iter().any(|part| reads(part, field)),
        },
        _ => parts(expression).into_iter().any(|part| reads(part, field)),
    }
}

/// Turns `.spec['a.b'].c` into `spec[a.b].c`, as Kubernetes prints paths.
fn normalise_field_path(path: &str) -> String {
    path.strip_prefix('.').unwrap_or(path).replace("['", "[").replace("']", "]")
}

pub(super) fn usable_message(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n')).then(|| text.to_string())
}
