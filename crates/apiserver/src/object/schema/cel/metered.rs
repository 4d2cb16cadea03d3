//! The functions that count, and those of the library whose work is more than proportional to their arguments.

use super::install::{METERED, OPERATORS, PATTERNS};
use super::meter::spend;
use super::tree::{SPEND, WEIGH};
use super::weights::Weight;
use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{CallExpr, Expr, operators};
use kube_cel::cel::common::types::CelList;
use kube_cel::cel::common::value::Val;
use kube_cel::cel::extractors::Arguments;
use kube_cel::cel::parser::Expression;
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};
use regex::{Regex, RegexBuilder};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Functions whose result or work may be larger than all arguments together: that is counted before they run.
const PRODUCTS: [&str; 10] = [
    "replace",
    "join",
    "split",
    "indexOf",
    "lastIndexOf",
    "distinct",
    "format",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
];

/// The library as it is.
static LIBRARY: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());

/// Adds the functions of this module.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function(SPEND, count_iteration);
    context.add_function(WEIGH, weigh);
    for operator in OPERATORS {
        context.add_function(&format!("{METERED}{operator}"), operate);
    }
    for name in PRODUCTS {
        context.add_function(name, move |context: &FunctionContext, Arguments(args): Arguments| {
            let values: Vec<Value> = context.this.iter().chain(args.iter()).cloned().collect();
            spend(context.name, weight_of_product(name, &values))?;
            library(name, context.this.is_some(), values)
        });
    }
    for name in PATTERNS {
        for is_literal in [true, false] {
            let registered = if is_literal { format!("{METERED}{name}") } else { name.to_owned() };
            context.add_function(&registered, move |context: &FunctionContext, Arguments(args): Arguments| {
                let values: Vec<&Value> = context.this.iter().chain(args.iter()).collect();
                match_pattern(name, is_literal, &values)
            });
        }
    }
}

/// Counts an iteration of a loop: its steps, and the values of the variables that follow.
fn count_iteration(context: &FunctionContext, steps: i64) -> Result<bool, ExecutionError> {
    let copied = context.args[1..].iter().map(|variable| {
        // The item has no value before the first iteration.
        Value::resolve_val(variable, context.ptx).map_or(Weight::NONE, |value| Weight::of_val(value.as_ref()))
    });
    let weight = copied.fold(Weight::of_steps(steps.unsigned_abs()), Weight::plus);
    spend(SPEND, weight).map(|()| true)
}

/// Returns its argument, which it counts.
fn weigh(value: Value) -> Result<Value, ExecutionError> {
    spend(WEIGH, Weight::of(&value)).map(|()| value)
}

/// An operator with two operands.
fn operate(context: &FunctionContext) -> Result<Value, ExecutionError> {
    let [one, other] = context.args else { return Err(ExecutionError::NoSuchOverload) };
    let one = Value::resolve_val(one, context.ptx)?;
    let other = Value::resolve_val(other, context.ptx)?;
    let (one, other): (&dyn Val, &dyn Val) = (one.as_ref(), other.as_ref());
    let operator = context.name.trim_start_matches(METERED);
    spend(operator, weight_of_operation(operator, one, other))?;
    let order = || one.as_comparer().ok_or(ExecutionError::NoSuchOverload)?.compare(other);
    Ok(Value::Bool(match operator {
        operators::EQUALS => one.equals(other),
        operators::NOT_EQUALS => !one.equals(other),
        operators::LESS => order()? == Ordering::Less,
        operators::LESS_EQUALS => order()? != Ordering::Greater,
        operators::GREATER => order()? == Ordering::Greater,
        operators::GREATER_EQUALS => order()? != Ordering::Less,
        operators::IN => other.as_container().ok_or(ExecutionError::NoSuchOverload)?.contains(one)?,
        _ => {
            let sum = one.as_adder().ok_or(ExecutionError::NoSuchOverload)?.add(other)?;
            return Value::try_from(sum.as_ref());
        }
    }))
}

fn weight_of_operation(operator: &str, one: &dyn Val, other: &dyn Val) -> Weight {
    match operator {
        operators::ADD => Weight::of_val(one).plus(Weight::of_val(other)),
        // Every item may be compared; in a map one key is looked for.
        operators::IN if other.downcast_ref::<CelList>().is_some() => Weight::of_val(other),
        operators::IN => Weight::of_val(one),
        _ => Weight::of_comparing(one, other),
    }
}

/// Returns the weight of the work that a function of [`PRODUCTS`] does beyond reading its arguments.
fn weight_of_product(name: &str, values: &[Value]) -> Weight {
    let bytes = |products: usize| Weight::of_bytes(products);
    match (name, values) {
        ("replace", [Value::String(text), Value::String(from), Value::String(to), rest @ ..]) => {
            let found = text.matches(from.as_str()).count();
            let most = match rest {
                [Value::Int(most), ..] => usize::try_from(*most).unwrap_or_default(),
                _ => usize::MAX,
            };
            bytes(to.len().saturating_mul(found.min(most)))
        }
        // Each part is a string of its own.
        ("split", [Value::String(text), Value::String(separator), ..]) => {
            bytes(text.matches(separator.as_str()).count().saturating_mul(5))
        }
        ("join", [Value::List(items), Value::String(separator), ..]) => {
            bytes(items.len().saturating_mul(separator.len()))
        }
        ("indexOf" | "lastIndexOf", [Value::String(text), Value::String(wanted), ..]) => {
            bytes(text.len().saturating_mul(wanted.len()) / 10)
        }
        ("distinct", [Value::List(items)]) => Weight::of(&values[0]).times(items.len()).part(2),
        ("format", [Value::String(text), ..]) => {
            let precisions = text.split("%.").skip(1).map(|rest| {
                let digits = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
                rest[..digits].parse().unwrap_or(usize::MAX)
            });
            bytes(precisions.fold(0, usize::saturating_add))
        }
        (_, [Value::List(one), Value::List(other)]) => {
            let (of_one, of_other) = (Weight::of(&values[0]), Weight::of(&values[1]));
            of_one.times(other.len()).plus(of_other.times(one.len()))
        }
        _ => Weight::NONE,
    }
}

/// Calls a function of the library.
fn library(name: &str, has_target: bool, values: Vec<Value>) -> Result<Value, ExecutionError> {
    let mut context = LIBRARY.new_inner_scope();
    let mut args = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let variable = format!("a{index}");
        context.add_variable_from_value(variable.clone(), value);
        args.push(Expression { id: 0, expr: Expr::Ident(variable) });
    }
    let (target, name) = match name.split_once('.') {
        Some((namespace, name)) => (Some(Expression { id: 0, expr: Expr::Ident(namespace.to_owned()) }), name),
        None if has_target => (Some(args.remove(0)), name),
        None => (None, name),
    };
    let call = CallExpr { target: target.map(Box::new), func_name: name.to_owned(), args };
    context.resolve(&Expression { id: 0, expr: Expr::Call(call) })
}

/// The cost of compiling a pattern that is not part of the rule: up to some milliseconds.
const COMPILATION_STEPS: u64 = 5_000;
/// The size of such a pattern when it is compiled. Larger ones take longer to compile and to match.
const COMPILED_BYTES: usize = 256 << 10;
/// The length that such a pattern counts for, in characters of a pattern: it may repeat what it has.
const FOREIGN_PATTERN_CHARS: usize = 1_024;
/// Compiled patterns of rules that are kept: more than there are in all kinds.
const KEPT_PATTERNS: usize = 1_024;

static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);

/// Compiles a pattern, or finds it compiled if it is part of a rule.
fn compile(pattern: &str, is_literal: bool) -> Result<Regex, regex::Error> {
    if !is_literal {
        return RegexBuilder::new(pattern).size_limit(COMPILED_BYTES).build();
    }
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = compiled.get(pattern) {
        return Ok(found.clone());
    }
    let regex = Regex::new(pattern)?;
    if compiled.len() >= KEPT_PATTERNS {
        compiled.clear();
    }
    compiled.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

/// `text.matches(pattern)`, `text.find(pattern)`, `text.findAll(pattern, most)`.
fn match_pattern(name: &str, is_literal: bool, values: &[&Value]) -> Result<Value, ExecutionError> {
    let [Value::String(text), Value::String(pattern), rest @ ..] = values else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let chars = if is_literal { pattern.len() } else { pattern.len().max(FOREIGN_PATTERN_CHARS) };
    // As in Kubernetes: a tenth of a step for each byte, times a quarter of the pattern.
    let scan = |bytes: usize| Weight::of_bytes(bytes).times((chars / 4).max(1));
    let compilation = if is_literal { Weight::NONE } else { Weight::of_steps(COMPILATION_STEPS) };
    spend(name, compilation.plus(scan(text.len())))?;
    let regex = compile(pattern, is_literal)
        .map_err(|error| ExecutionError::function_error(name, format!("invalid regex: {error}")))?;
    let shown = |text: &str| Value::String(Arc::new(text.to_owned()));
    match name {
        "matches" => Ok(Value::Bool(regex.is_match(text))),
        "find" => Ok(shown(regex.find(text).map_or("", |found| found.as_str()))),
        _ => {
            let most = match rest {
                [Value::Int(most), ..] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let mut all = Vec::new();
            for found in regex.find_iter(text).take(most) {
                // A match may be short and yet have looked at the whole rest.
                spend(name, scan(text.len() - found.start()).part(64).plus(Weight::of_bytes(5)))?;
                all.push(shown(found.as_str()));
            }
            Ok(Value::List(Arc::new(all)))
        }
    }
}
