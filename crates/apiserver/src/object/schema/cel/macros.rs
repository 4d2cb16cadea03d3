//! Macros of newer CEL versions that the library lacks, expressed in the CEL that it has.
//!
//! Two variables become one that holds a pair: `self.m.all(k, v, v > 0)` is `pairs(self.m).all(pair, pair[1] > 0)`. The inner
//! macros are expanded before the outer ones, and every pair has a unique name, so that none hides another.

use super::tree::parts_mut;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::parser::{Expression, Parser};
use kube_cel::cel::{Context, ExecutionError, Value};

/// The placeholders for the parts of a call in [`template`].
const RANGE: &str = "__range";
const FILTER: &str = "__filter";
const BODY: &str = "__body";

/// Returns the expansion of a macro with this name and number of arguments, in terms of functions of [`register`] and the
/// variable `pair`.
fn template(name: &str, arguments: usize, pair: &str) -> Option<String> {
    Some(match (name, arguments) {
        ("all" | "exists", 3) => format!("__pairs({RANGE}).{name}({pair}, {BODY})"),
        ("existsOne" | "exists_one", 3) => format!("__pairs({RANGE}).exists_one({pair}, {BODY})"),
        ("transformList", 3) => format!("__pairs({RANGE}).map({pair}, {BODY})"),
        ("transformList", 4) => format!("__pairs({RANGE}).map({pair}, {FILTER}, {BODY})"),
        ("transformMap", 3) => format!("__mapOf(__pairs({RANGE}).map({pair}, {{{pair}[0]: {BODY}}}))"),
        ("transformMap", 4) => format!("__mapOf(__pairs({RANGE}).map({pair}, {FILTER}, {{{pair}[0]: {BODY}}}))"),
        ("transformMapEntry", 3) => format!("__mapOf(__pairs({RANGE}).map({pair}, {BODY}))"),
        ("transformMapEntry", 4) => format!("__mapOf(__pairs({RANGE}).map({pair}, {FILTER}, {BODY}))"),
        ("sortBy", 2) => format!("__sortedBy({RANGE}, {RANGE}.map({pair}, {BODY}))"),
        _ => return None,
    })
}

/// Whether functions are called with this prefix (`sets.contains(a, b)`): a value of this name is not what they are called on.
pub(super) fn is_namespace(name: &str) -> bool {
    const NAMESPACES: [&str; 10] =
        ["base64", "cidr", "format", "ip", "jsonpatch", "lists", "math", "optional", "sets", "strings"];
    NAMESPACES.contains(&name)
}

/// Registers the functions that expanded macros call.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function("__pairs", pairs);
    context.add_function("__mapOf", map_of);
    context.add_function("__sortedBy", sorted_by);
}

/// Replaces every macro of this module; the error is for the author of the schema.
pub(super) fn expand(expression: &mut Expression) -> Result<(), String> {
    parts_mut(expression).into_iter().try_for_each(expand)?;
    let Expr::Call(CallExpr { func_name, target: Some(target), args }) = &expression.expr else { return Ok(()) };
    let pair = format!("__pair{}", expression.id);
    let Some(source) = template(func_name, args.len(), &pair) else { return Ok(()) };
    let mut expanded = Parser::new().parse(&source).map_err(|errors| errors.to_string())?;
    let is_sorting = func_name == "sortBy";
    let (variables, rest) = args.split_at(if is_sorting { 1 } else { 2 });
    let mut parts: Vec<IdedExpr> = rest.to_vec();
    for (index, variable) in variables.iter().enumerate() {
        let Expr::Ident(name) = &variable.expr else {
            return Err(format!("argument {} of {func_name} must be a simple name", index + 1));
        };
        let value = if is_sorting { pair.clone() } else { format!("{pair}[{index}]") };
        let value = Parser::new().parse(&value).map_err(|errors| errors.to_string())?;
        parts.iter_mut().for_each(|part| substitute(part, name, &value));
    }
    let body = parts.pop().unwrap_or_default();
    substitute(&mut expanded, BODY, &body);
    if let Some(filter) = parts.pop() {
        substitute(&mut expanded, FILTER, &filter);
    }
    substitute(&mut expanded, RANGE, target);
    expanded.id = expression.id;
    *expression = expanded;
    Ok(())
}

/// Replaces a variable by an expression, except where a comprehension has a variable of that name.
fn substitute(expression: &mut IdedExpr, name: &str, by: &IdedExpr) {
    match &mut expression.expr {
        Expr::Ident(found) if found == name => *expression = by.clone(),
        Expr::Comprehension(it) if it.iter_var == name => substitute(&mut it.iter_range, name, by),
        _ => parts_mut(expression).into_iter().for_each(|part| substitute(part, name, by)),
    }
}

fn list(items: Vec<Value>) -> Value {
    Value::List(Arc::new(items))
}

/// `[index, item]` of a list, `[key, value]` of a map.
fn pairs(range: Value) -> Result<Value, ExecutionError> {
    match &range {
        Value::List(items) => {
            let pair = |(index, item): (usize, &Value)| list(vec![Value::Int(index as i64), item.clone()]);
            Ok(list(items.iter().enumerate().map(pair).collect()))
        }
        Value::Map(map) => Ok(list(map.map.iter().map(|(key, value)| list(vec![key.into(), value.clone()])).collect())),
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// Merges maps; a key that occurs in two of them is an error.
fn map_of(maps: Value) -> Result<Value, ExecutionError> {
    let Value::List(maps) = &maps else { return Err(ExecutionError::NoSuchOverload) };
    let mut all: HashMap<Key, Value> = HashMap::new();
    for map in maps.iter() {
        let Value::Map(map) = map else { return Err(ExecutionError::NoSuchOverload) };
        for (key, value) in map.map.iter() {
            if all.insert(key.clone(), value.clone()).is_some() {
                return Err(ExecutionError::function_error(
                    "insert",
                    format!("insert failed: key '{key}' already exists"),
                ));
            }
        }
    }
    Ok(Value::Map(Map { map: Arc::new(all) }))
}

/// Sorts a list by the keys that belong to its items.
fn sorted_by(items: Value, keys: Value) -> Result<Value, ExecutionError> {
    let (Value::List(items), Value::List(keys)) = (&items, &keys) else { return Err(ExecutionError::NoSuchOverload) };
    let mut both: Vec<(&Value, &Value)> = keys.iter().zip(items.iter()).collect();
    let mut problem = None;
    both.sort_by(|(one, _), (other, _)| {
        if std::mem::discriminant(*one) != std::mem::discriminant(*other) {
            problem = Some("list elements must have the same type");
        }
        one.partial_cmp(other).unwrap_or_else(|| {
            problem = problem.or(Some("list elements must be comparable"));
            Ordering::Equal
        })
    });
    match problem {
        Some(problem) => Err(ExecutionError::function_error("sortBy", problem)),
        None => Ok(list(both.into_iter().map(|(_, item)| item.clone()).collect())),
    }
}
