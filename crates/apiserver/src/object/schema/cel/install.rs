//! Rewrites compiled expressions so that their evaluation is counted, and no more is copied than has to be.
//!
//! | in the expression | what it becomes | what is counted |
//! |---|---|---|
//! | a loop | its condition asks [`SPEND`] first | the steps of an iteration, the item and what the loop has gathered, which are copied |
//! | `a == b`, `a < b`, `a in b`, `a + b`, … | the function of that name with `#` | what is compared, searched or joined |
//! | `f(x)`, `x.f(y)`, `[x]`, `{k: x}`, `a[x]` | `f(WEIGH(x))`, … | the arguments, which are copied |
//! | `x.matches("…")` and the like | the function of that name with `#` | as above, without the compilation of the pattern |
//! | `a.b` | `a["b"]`, which gives a reference where the library's `a.b` copies | nothing |

use super::macros::is_namespace;
use super::tree::{SPEND, WEIGH, parts_mut, steps};
use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use kube_cel::cel::parser::Expression;

/// A function name that no expression can contain.
pub(super) const NEGATE: &str = "@negate";
/// Begins the names of functions that replace operators and functions of the library.
pub(super) const METERED: char = '#';

/// Operators whose cost depends on their operands.
pub(super) const OPERATORS: [&str; 8] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
    operators::IN,
    operators::ADD,
];
/// Operators that cost the same whatever they are given.
const FREE: [&str; 11] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NOT_STRICTLY_FALSE,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    NEGATE,
    SPEND,
];
/// Functions that compile a pattern.
pub(super) const PATTERNS: [&str; 3] = ["matches", "find", "findAll"];
/// The variable in which the library's loops gather their result.
const GATHERED: &str = "@result";

/// Rewrites an expression.
pub(super) fn install(expression: &mut Expression) {
    // Before its parts are rewritten: what is counted is the expression of the author.
    if let Expr::Comprehension(it) = &mut expression.expr {
        count_iterations(it);
    }
    parts_mut(expression).into_iter().for_each(install);
    match &mut expression.expr {
        Expr::Select(select) if !select.test => {
            let operand = std::mem::take(&mut *select.operand);
            let field = std::mem::take(&mut select.field);
            let field = literal(LiteralValue::String(field.as_str().into()));
            expression.expr = call(operators::INDEX, vec![operand, field]).expr;
        }
        Expr::List(list) => list.elements.iter_mut().for_each(weigh),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    weigh(&mut entry.key);
                    weigh(&mut entry.value);
                }
            }
        }
        Expr::Call(it) => match it.func_name.as_str() {
            // What a loop has gathered is counted by its condition.
            operators::ADD if matches!(it.args.first(), Some(Expression { expr: Expr::Ident(name), .. }) if name == GATHERED) =>
                {}
            name if OPERATORS.contains(&name) => it.func_name = format!("{METERED}{name}"),
            operators::INDEX => it.args.iter_mut().skip(1).for_each(weigh),
            operators::OPT_INDEX => {
                it.args.iter_mut().skip(1).for_each(weigh);
                weigh(expression);
            }
            name if FREE.contains(&name) => {}
            _ => {
                if it.target.is_some() && PATTERNS.contains(&it.func_name.as_str()) && is_literal(&it.args) {
                    it.func_name.insert(0, METERED);
                }
                it.args.iter_mut().for_each(weigh);
                if let Some(target) = it.target.as_deref_mut() {
                    weigh(target);
                }
            }
        },
        _ => {}
    }
}

fn is_literal(args: &[Expression]) -> bool {
    matches!(args.first(), Some(Expression { expr: Expr::Literal(_), .. }))
}

/// Lets a loop count its iterations.
fn count_iterations(it: &mut ComprehensionExpr) {
    let cost = steps(&it.loop_cond) + steps(&it.loop_step);
    let ident = |name: &String| Expression { id: 0, expr: Expr::Ident(name.clone()) };
    let mut counted = vec![literal(LiteralValue::Int((cost as i64).into())), ident(&it.iter_var)];
    if !matches!(it.accu_init.expr, Expr::Literal(_)) {
        counted.push(ident(&it.accu_var));
    }
    let condition = std::mem::take(&mut it.loop_cond);
    it.loop_cond = call(operators::LOGICAL_AND, vec![call(SPEND, counted), condition]);
}

/// Wraps a value whose weight is not known in [`WEIGH`].
fn weigh(expression: &mut Expression) {
    let is_known = match &expression.expr {
        Expr::Literal(_) => true,
        Expr::Call(it) => it.func_name == WEIGH,
        Expr::Ident(name) => is_namespace(name),
        _ => false,
    };
    if !is_known {
        let inner = std::mem::take(expression);
        *expression = call(WEIGH, vec![inner]);
    }
}

pub(super) fn call(name: &str, args: Vec<Expression>) -> Expression {
    Expression { id: 0, expr: Expr::Call(CallExpr { target: None, func_name: name.to_string(), args }) }
}

fn literal(value: LiteralValue) -> Expression {
    Expression { id: 0, expr: Expr::Literal(value) }
}
