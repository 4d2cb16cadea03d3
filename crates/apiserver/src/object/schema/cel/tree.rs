//! Access to the parts of an expression's syntax tree.

use kube_cel::cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};
use kube_cel::cel::parser::Expression;

/// The name of the parser's thread. Its panics become errors: the library panics at some invalid expressions.
pub(super) const PARSER: &str = "cel-parser";

/// Returns the direct subexpressions.
pub(super) fn parts(expression: &Expression) -> Vec<&Expression> {
    match &expression.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(it) => vec![&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(it) => it.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&Expression> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// Returns the direct subexpressions, mutable.
pub(super) fn parts_mut(expression: &mut Expression) -> Vec<&mut Expression> {
    match &mut expression.expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(&mut call.args).collect(),
        Expr::Comprehension(it) => {
            vec![&mut it.iter_range, &mut it.accu_init, &mut it.loop_cond, &mut it.loop_step, &mut it.result]
        }
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Select(select) => vec![&mut select.operand],
        Expr::Map(map) => map.entries.iter_mut().flat_map(|entry| entry_parts_mut(&mut entry.expr)).collect(),
        Expr::Struct(it) => it.entries.iter_mut().flat_map(|entry| entry_parts_mut(&mut entry.expr)).collect(),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
    }
}

fn entry_parts_mut(entry: &mut EntryExpr) -> Vec<&mut Expression> {
    match entry {
        EntryExpr::StructField(field) => vec![&mut field.value],
        EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
    }
}

/// The functions that count, under names that no expression can contain.
pub(super) const SPEND: &str = "@spend";
pub(super) const WEIGH: &str = "@weigh";

/// Counts the nodes of an expression as its author wrote it: its steps when each loop runs once.
pub(super) fn steps(expression: &Expression) -> u64 {
    let below = || parts(expression).into_iter().map(steps).sum::<u64>();
    match &expression.expr {
        Expr::Call(call) if call.func_name == WEIGH => below(),
        Expr::Call(call) if call.func_name == SPEND => 0,
        // A field, which the author wrote as a selection.
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [operand, Expression { expr: Expr::Literal(LiteralValue::String(_)), .. }] => 1 + steps(operand),
            _ => 1 + below(),
        },
        _ => 1 + below(),
    }
}
