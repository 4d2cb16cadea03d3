//! Expressions and the functions that they may call.

use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{EntryExpr, Expr, operators};
use kube_cel::cel::extractors::This;
use kube_cel::cel::parser::{Expression, Parser};
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};
use std::sync::{Arc, LazyLock};

/// Macros of newer CEL that the library does not have. A rule that uses one is refused with its schema, not when it runs.
const MISSING: [&str; 10] = [
    "sortBy",
    "bind",
    "transformList",
    "transformMap",
    "transformMapEntry",
    "existsOne",
    "all",
    "exists",
    "exists_one",
    "map",
];

/// Kubernetes' functions, with what the library lacks or does otherwise: lengths count characters, `type` and `dyn`.
pub(super) static BASE: LazyLock<Context<'static>> = LazyLock::new(|| {
    let mut context = Context::default().with_all();
    context.add_function("size", size);
    context.add_function("dyn", dynamic);
    context.add_function("type", type_of);
    for name in ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"] {
        context.add_variable_from_value(name, Value::String(Arc::new(name.to_string())));
    }
    context
});

fn size(context: &FunctionContext, This(this): This<Value>) -> Result<i64, ExecutionError> {
    let size = match &this {
        Value::String(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        Value::Bytes(bytes) => bytes.len(),
        other => return Err(context.error(format!("{} has no size", other.type_of()))),
    };
    Ok(size as i64)
}

/// Types are checked when a rule runs, so there is nothing to forget.
fn dynamic(value: Value) -> Result<Value, ExecutionError> {
    Ok(value)
}

/// Types are their names; so are the variables named like them.
fn type_of(value: Value) -> Result<Value, ExecutionError> {
    Ok(Value::String(Arc::new(type_name(&value).to_string())))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Bytes(_) => "bytes",
        Value::Float(_) => "double",
        Value::Int(_) => "int",
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Null => "null_type",
        Value::String(_) => "string",
        Value::UInt(_) => "uint",
        _ => "other",
    }
}

/// Parses an expression; the error is for whoever writes the schema.
pub(super) fn parse(source: &str) -> Result<Expression, String> {
    let mut expression =
        Parser::new().enable_optional_syntax(true).parse(source).map_err(|errors| errors.to_string())?;
    if let Some(name) = expression.references().functions().iter().find(|f| MISSING.contains(*f)) {
        return Err(format!("{name} in this form is not supported"));
    }
    select_by_index(&mut expression);
    Ok(expression)
}

/// `a.?b` becomes `a[?"b"]`: the library fails on a missing field in the first form, not in the second.
fn select_by_index(expression: &mut Expression) {
    match &mut expression.expr {
        Expr::Call(call) => {
            if call.func_name == operators::OPT_SELECT {
                call.func_name = operators::OPT_INDEX.to_string();
            }
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(select_by_index);
        }
        Expr::Comprehension(it) => {
            for part in [&mut it.iter_range, &mut it.accu_init, &mut it.loop_cond, &mut it.loop_step, &mut it.result] {
                select_by_index(part);
            }
        }
        Expr::List(list) => list.elements.iter_mut().for_each(select_by_index),
        Expr::Select(select) => select_by_index(&mut select.operand),
        Expr::Map(map) => map.entries.iter_mut().for_each(|e| entry(&mut e.expr)),
        Expr::Struct(it) => it.entries.iter_mut().for_each(|e| entry(&mut e.expr)),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => select_by_index(&mut field.value),
        EntryExpr::MapEntry(entry) => {
            select_by_index(&mut entry.key);
            select_by_index(&mut entry.value);
        }
    }
}
