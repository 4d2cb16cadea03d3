//! Expressions and the functions that they can call.

use super::install::{NEGATE, install};
use super::tree::{PARSER, parts, parts_mut};
use super::{macros, metered};
use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{Expr, operators};
use kube_cel::cel::extractors::This;
use kube_cel::cel::parser::{Expression, Parser};
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};
use std::sync::{Arc, LazyLock};

/// Macros of newer CEL versions that the library lacks, and functions that Kubernetes does not have (lists of a given length). A
/// rule that uses one is refused with its schema, not when it runs.
const MISSING: [&str; 12] = [
    "lists.range",
    "range",
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

/// Kubernetes' functions, including those that the library lacks or implements differently: `size` counts characters, `type` and
/// `dyn`.
pub(super) static BASE: LazyLock<Context<'static>> = LazyLock::new(|| {
    let mut context = Context::default().with_all();
    context.add_function("size", size);
    context.add_function("dyn", dynamic);
    context.add_function("type", type_of);
    context.add_function("sum", sum);
    context.add_function(NEGATE, negate);
    metered::register(&mut context);
    macros::register(&mut context);
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

/// `sum` with a check for overflow, which the library does not have.
fn sum(context: &FunctionContext, This(items): This<Arc<Vec<Value>>>) -> Result<Value, ExecutionError> {
    let Some((first, rest)) = items.split_first() else { return Ok(Value::Int(0)) };
    rest.iter().try_fold(first.clone(), |sum, item| {
        let sum = match (&sum, item) {
            (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int),
            (Value::UInt(a), Value::UInt(b)) => a.checked_add(*b).map(Value::UInt),
            (Value::Float(a), Value::Float(b)) => Some(Value::Float(a + b)),
            _ => return Err(context.error("no such overload")),
        };
        sum.ok_or(ExecutionError::Overflow("sum", Value::Null, Value::Null))
    })
}

fn negate(value: Value) -> Result<Value, ExecutionError> {
    match value {
        Value::Int(number) => match number.checked_neg() {
            Some(negative) => Ok(Value::Int(negative)),
            None => Err(ExecutionError::Overflow("minus", value, Value::Null)),
        },
        Value::Float(number) => Ok(Value::Float(-number)),
        other => Err(ExecutionError::UnsupportedUnaryOperator("minus", other)),
    }
}

/// `dyn`: types are checked when a rule runs, so it returns its argument.
fn dynamic(value: Value) -> Result<Value, ExecutionError> {
    Ok(value)
}

/// `type`: represents a type by its name. The variables named after types have the same values.
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

/// The maximum nesting of an expression, in brackets and operators. Deeper ones overflow the stack of the thread that evaluates
/// them.
const MAX_DEPTH: usize = 40;
/// The maximum length of an expression. The parser needs stack for each operator of a chain.
const MAX_BYTES: usize = 10 * 1024;
/// The stack of the parser's thread. The worst expressions of the maximum length used two thirds of it.
const PARSER_STACK: usize = 128 << 20;

/// Parses an expression; the error is for the author of the schema.
pub(super) fn parse(source: &str) -> Result<Expression, String> {
    if source.len() > MAX_BYTES {
        return Err(format!("it has {} bytes: expected at most {MAX_BYTES}", source.len()));
    }
    let owned = source.to_string();
    let thread = std::thread::Builder::new().name(PARSER.into()).stack_size(PARSER_STACK);
    let thread = thread.spawn(move || parse_here(&owned));
    let thread = thread.map_err(|error| format!("there is no thread to parse it: {error}"))?;
    thread.join().unwrap_or_else(|_| Err("the parser failed at it".to_string()))
}

fn parse_here(source: &str) -> Result<Expression, String> {
    let parser = Parser::new().enable_optional_syntax(true).max_recursion_depth(MAX_DEPTH as u16);
    let mut expression = parser.parse(source).map_err(|errors| errors.to_string())?;
    macros::expand(&mut expression)?;
    if depth(&expression) > MAX_DEPTH {
        return Err(format!("it is nested deeper than {MAX_DEPTH}"));
    }
    if let Some(name) = expression.references().functions().iter().find(|f| MISSING.contains(*f)) {
        return Err(format!("{name} in this form is not supported"));
    }
    if let Some(problem) = unsupported(&expression) {
        return Err(problem);
    }
    rewrite(&mut expression);
    install(&mut expression);
    Ok(expression)
}

fn depth(expression: &Expression) -> usize {
    1 + parts(expression).into_iter().map(depth).max().unwrap_or(0)
}

/// Finds expressions that the parser accepts and on which the evaluation panics.
fn unsupported(expression: &Expression) -> Option<String> {
    match &expression.expr {
        Expr::Struct(it) => return Some(format!("messages such as {}{{…}} are not supported", it.type_name)),
        Expr::Unspecified => return Some("an expression is missing".to_string()),
        _ => {}
    }
    parts(expression).into_iter().find_map(unsupported)
}

/// Rewrites expressions that the library evaluates differently: `a.?b` becomes `a[?"b"]`, because the first form fails on a
/// missing field; `-a` becomes a call, because negation overflows.
fn rewrite(expression: &mut Expression) {
    if let Expr::Call(call) = &mut expression.expr {
        match call.func_name.as_str() {
            operators::OPT_SELECT => call.func_name = operators::OPT_INDEX.to_string(),
            operators::NEGATE => call.func_name = NEGATE.to_string(),
            _ => {}
        }
    }
    parts_mut(expression).into_iter().for_each(rewrite);
}
