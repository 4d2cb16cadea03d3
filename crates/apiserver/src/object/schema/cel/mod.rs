//! `x-kubernetes-validations`: CEL rules, compiled once with the schema.
//!
//! As in Kubernetes: a rule sees `self` typed by the schema (a `number` is a double even when written `1`); a transition rule
//! (one that uses `oldSelf`) runs only where an old value can be correlated, which in lists requires list-type map; errors of
//! rules without `oldSelf` are dropped where the update changes nothing; a rule that fails to run refuses the object.

mod expression;
mod install;
mod macros;
mod meter;
mod metered;
mod rules;
mod tree;
pub use meter::THREAD_STACK_BYTES;
#[cfg(fuzzing)]
pub(crate) use meter::is_running;
#[cfg(test)]
mod tests;
mod value;
mod weights;

use super::path::Path;
use super::validate::OldItems;
use super::{ListType, MapType, Node, Type};
use crate::object::field_error::{Errors, FieldError, Reason};
use expression::BASE;
use kube_cel::cel::Value as CelValue;
use kube_cel::cel::objects::OptionalValue;
use meter::Budget;
use rules::{MAX_MESSAGE_BYTES, usable_message};
pub(super) use rules::{Rule, compile_rules};
use serde_json::Value;
use std::sync::Arc;
use value::to_cel;

/// The knowledge about the old value at a path.
#[derive(Clone, Copy)]
struct Ratchet<'a> {
    /// The old value at this path, if one can be correlated.
    current: Option<&'a Value>,
    /// Otherwise whether the nearest parent with a known old value is unchanged.
    parent_unchanged: bool,
}

impl Ratchet<'_> {
    fn unchanged(self, value: &Value) -> bool {
        self.current.map_or(self.parent_unchanged, |old| old == value)
    }
}

/// The part of an object that a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything.
    Object,
    /// Only `status`: rules about the rest are not evaluated, so that such a write never fails for what another client has written.
    Status,
}

pub(super) fn validate(object: &Value, old: Option<&Value>, root: &Node, scope: Scope) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let ratchet = Ratchet { current: old, parent_unchanged: false };
    let mut visitor = Visitor { budget: Budget::of_object(), errors: &mut errors, scope };
    meter::with_stack(|| visitor.visit(object, old, ratchet, root, root, &Path::ROOT));
    errors.list
}

/// Walks an object and evaluates its rules.
struct Visitor<'a> {
    budget: Budget,
    errors: &'a mut Errors,
    scope: Scope,
}

impl Visitor<'_> {
    /// `typed` is the structural node that gives types; `node` carries the rules (the same node, or one of its allOf).
    fn visit(
        &mut self,
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        typed: &Node,
        node: &Node,
        path: &Path<'_>,
    ) {
        if !node.has_rules || value.is_null() {
            return;
        }
        if self.scope == Scope::Status && ratchet.unchanged(value) {
            return;
        }
        let old = old.filter(|o| !o.is_null());
        if !node.rules.is_empty() {
            self.evaluate(value, old, ratchet, typed, node, path);
        }
        for branch in &node.checks.all_of {
            let ratchet = Ratchet { current: None, ..ratchet };
            self.visit(value, old, ratchet, typed, branch, path);
        }
        // Once for all that is below: it compares everything there.
        let parent_unchanged = ratchet.unchanged(value);
        match value {
            Value::Array(items) => {
                let (Some(child), Some(typed_child)) = (&node.items, &typed.items) else { return };
                // Transition rules have an old value only where keys say which one it is.
                let keyed_old = old.filter(|_| matches!(typed.list_type, ListType::Map(_)));
                let (old_items, current_items) = (OldItems::of(typed, keyed_old), OldItems::of(typed, ratchet.current));
                for (i, item) in items.iter().enumerate() {
                    let below = Ratchet { current: current_items.of_item(i, item), parent_unchanged };
                    self.visit(item, old_items.of_item(i, item), below, typed_child, child, &path.index(i));
                }
            }
            Value::Object(map) => {
                let correlatable = typed.map_type == MapType::Granular;
                for (name, entry) in map {
                    let old_entry = old.filter(|_| correlatable).and_then(|o| o.get(name));
                    let below = Ratchet { current: ratchet.current.and_then(|o| o.get(name)), parent_unchanged };
                    if let (Some(child), Some(typed_child)) = (node.properties.get(name), typed.properties.get(name)) {
                        self.visit(entry, old_entry, below, typed_child, child, &path.field(name));
                    } else if let (Some(child), Some(typed_child)) = (&node.additional, &typed.additional) {
                        self.visit(entry, old_entry, below, typed_child, child, &path.key(name));
                    }
                }
            }
            _ => {}
        }
    }

    fn evaluate(
        &mut self,
        value: &Value,
        old: Option<&Value>,
        ratchet: Ratchet<'_>,
        typed: &Node,
        node: &Node,
        path: &Path<'_>,
    ) {
        if self.budget.is_over || self.errors.is_full() {
            return;
        }
        let skips_rest = self.scope == Scope::Status && path.is_root();
        let is_skipped = |rule: &Rule| skips_rest && !rule.reads_status;
        if node.rules.iter().all(is_skipped) {
            return;
        }
        let mut context = BASE.new_inner_scope();
        context.add_variable_from_value("self", to_cel(value, typed));
        let cel_old = old.filter(|_| node.rules.iter().any(|r| r.uses_old)).map(|o| to_cel(o, typed));

        for rule in &node.rules {
            if is_skipped(rule) || (rule.uses_old && old.is_none() && !rule.optional_old) {
                continue;
            }
            let mut context = context.new_inner_scope();
            if rule.optional_old {
                let optional = cel_old.clone().map_or_else(OptionalValue::none, OptionalValue::of);
                context.add_variable_from_value("oldSelf", CelValue::Opaque(Arc::new(optional)));
            } else if let Some(old) = &cel_old {
                context.add_variable_from_value("oldSelf", old.clone());
            }
            let spoken = if rule.message.is_empty() { &rule.text } else { &rule.message };
            if self.budget.is_spent() {
                return self.give_up(path, typed, meter::NOTHING_LEFT.to_owned());
            }
            let problem = match self.budget.run(&rule.expression, &context) {
                Ok(CelValue::Bool(true)) => continue,
                Ok(CelValue::Bool(false)) => None,
                Ok(other) => Some(format!("rule gave {} instead of a boolean: {spoken}", other.type_of())),
                Err(error) if let Some(cause) = meter::exceeded(&error) => {
                    let end = "no further validation rules will be run due to call cost exceeds limit for rule";
                    return self.give_up(path, typed, format!("'{cause}': {end}: {spoken}"));
                }
                Err(error) => Some(format!("{} evaluating rule: {spoken}", cel_go_message(&error))),
            };
            if let Some(problem) = problem {
                self.no_answer(path, typed, problem);
                continue;
            }
            if !rule.uses_old && ratchet.unchanged(value) {
                continue;
            }
            let message = rule.message_expression.as_ref().and_then(|e| match self.budget.run(e, &context) {
                Ok(CelValue::String(text)) => usable_message(&text),
                _ => None,
            });
            let detail = message.unwrap_or_else(|| match rule.message.as_str() {
                "" => format!("failed rule: {}", rule.text),
                message => message.to_string(),
            });
            let path = match rule.field_path.as_str() {
                "" => path.shown(),
                field if path.is_root() => field.to_string(),
                field if field.starts_with('[') => format!("{path}{field}"),
                field => format!("{path}.{field}"),
            };
            // Objects and lists are not shown, because they may be large.
            let shown_value = Some(value.clone()).filter(|_| !matches!(typed.kind, Some(Type::Object | Type::Array)));
            self.errors.push(match rule.reason {
                Some(Reason::Required) => FieldError::required(path, detail),
                Some(Reason::Forbidden) => FieldError::forbidden(path, detail),
                Some(Reason::Duplicate) => {
                    FieldError { path, reason: Reason::Duplicate, value: shown_value, detail: String::new() }
                }
                _ => FieldError { path, reason: Reason::Invalid, value: shown_value, detail },
            });
        }
    }

    /// Reports a rule that failed to run; the error shows the value's type.
    fn no_answer(&mut self, path: &Path<'_>, typed: &Node, problem: String) {
        let type_name = Value::from(typed.kind.map_or("", Type::as_str));
        self.errors.push(FieldError::invalid(path.shown(), type_name, problem));
    }

    /// Reports a rule that failed to run, and skips all further rules.
    fn give_up(&mut self, path: &Path<'_>, typed: &Node, problem: String) {
        self.no_answer(path, typed, problem);
        self.budget.is_over = true;
    }
}

/// Returns the error in cel-go's wording. The library's own wording shows values, which may be the whole object.
fn cel_go_message(error: &kube_cel::cel::ExecutionError) -> String {
    use kube_cel::cel::ExecutionError as Error;
    match error {
        Error::NoSuchKey(key) => format!("no such key: {key}"),
        Error::DivisionByZero(_) => "division by zero".to_string(),
        Error::RemainderByZero(_) => "modulus by zero".to_string(),
        Error::Overflow(..) => "integer overflow".to_string(),
        Error::IndexOutOfBounds(CelValue::Int(index)) => format!("index out of bounds: {index}"),
        Error::IndexOutOfBounds(_) => "index out of bounds".to_string(),
        Error::FunctionError { function, message } if function == "quantity" => match message {
            message if message.contains("suffix") => "unable to parse quantity's suffix".to_string(),
            _ => "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
                .to_string(),
        },
        // The library prints values of these types in its own format and in random order.
        Error::FunctionError { message, .. } if !["Map(", "List(", "Opaque("].iter().any(|it| message.contains(it)) => {
            message.chars().take(MAX_MESSAGE_BYTES).collect()
        }
        Error::UndeclaredReference(name) => format!("undeclared reference to '{name}'"),
        _ => "no such overload".to_string(),
    }
}
