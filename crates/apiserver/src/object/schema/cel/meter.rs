//! Limits the cost of rules. Rules loop over the input of clients, loops can be nested, and each iteration may copy a list:
//! without a bound one object of 1.5 MB keeps a processor busy for hours.
//!
//! The library has no limit of its own, so every loop of a compiled expression calls [`SPEND`] before each iteration, with the
//! number of steps that an iteration takes. The call fails when the budget of the evaluation is spent, or at a deadline, because
//! the cost of a step depends on the size of the values.

use super::tree::{parts, parts_mut};
use kube_cel::cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use kube_cel::cel::parser::Expression;
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A function name that no expression can contain.
pub(super) const SPEND: &str = "@spend";

/// Steps of one rule and of all rules for one object, as in Kubernetes. Lower limits refuse rules that are in use.
const RULE_STEPS: u64 = 1_000_000;
const OBJECT_STEPS: u64 = 10_000_000;

/// Time for all rules of one object. Shorter refuses large objects on a busy host; longer lets a client occupy a processor.
const TIME: Duration = Duration::from_secs(2);

/// Kubernetes' message when the budget of an object is spent before a rule.
pub(super) const NOTHING_LEFT: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// cel-go's messages.
const TOO_EXPENSIVE: &str = "operation cancelled: actual cost limit exceeded";
const TOO_LONG: &str = "operation interrupted: the rules took too long";

thread_local! {
    /// The steps and the deadline that the evaluation on this thread has left.
    static LEFT: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

/// An expression with the steps that it takes when each of its loops runs once.
#[derive(Debug)]
pub(super) struct Metered {
    expression: Expression,
    steps: u64,
}

impl From<Expression> for Metered {
    fn from(expression: Expression) -> Self {
        Metered { steps: steps(&expression), expression }
    }
}

/// The budget of the rules of one object.
pub(super) struct Budget {
    steps: u64,
    deadline: Instant,
    /// Set once the budget was reported as exceeded: the remaining rules are skipped.
    pub(super) is_over: bool,
}

impl Budget {
    pub(super) fn of_object() -> Self {
        Budget { steps: OBJECT_STEPS, deadline: Instant::now() + TIME, is_over: false }
    }

    /// Whether the budget is spent.
    pub(super) fn is_spent(&self) -> bool {
        self.steps == 0 || Instant::now() >= self.deadline
    }

    /// Evaluates an expression within the budget. A panic of the library is an error like any other: the object is refused with a
    /// message.
    pub(super) fn run(
        &mut self,
        Metered { expression, steps }: &Metered,
        context: &Context,
    ) -> Result<Value, ExecutionError> {
        let given = self.steps.min(RULE_STEPS).saturating_sub(*steps);
        let before = LEFT.replace(Some((given, self.deadline)));
        let out = catch_unwind(AssertUnwindSafe(|| context.resolve(expression))).unwrap_or_else(|_| {
            tracing::error!(?expression, "the evaluation of a rule panicked");
            Err(ExecutionError::function_error("rule", "internal error"))
        });
        let left = LEFT.replace(before).map_or(0, |(left, _)| left);
        self.steps -= self.steps.min(steps + (given - left));
        out
    }
}

/// Whether this thread parses or evaluates a rule; panics are then caught.
#[cfg(fuzzing)]
pub(crate) fn is_running() -> bool {
    LEFT.get().is_some() || std::thread::current().name() == Some(super::tree::PARSER)
}

/// Returns the reason if an evaluation failed because of its cost; further rules are then not run.
pub(super) fn exceeded(error: &ExecutionError) -> Option<&'static str> {
    let text = error.to_string();
    [TOO_EXPENSIVE, TOO_LONG].into_iter().find(|reason| text.contains(reason))
}

/// Called by every loop before each iteration, with the steps of an iteration.
pub(super) fn spend(context: &FunctionContext, steps: i64) -> Result<bool, ExecutionError> {
    let Some((left, deadline)) = LEFT.get() else { return Ok(true) };
    let wanted = steps.unsigned_abs();
    LEFT.set(Some((left.saturating_sub(wanted), deadline)));
    if left < wanted {
        return Err(context.error(TOO_EXPENSIVE));
    }
    if Instant::now() >= deadline {
        return Err(context.error(TOO_LONG));
    }
    Ok(true)
}

/// Adds the call of [`SPEND`] to every loop.
pub(super) fn install(expression: &mut Expression) {
    parts_mut(expression).into_iter().for_each(install);
    let Expr::Comprehension(it) = &mut expression.expr else { return };
    let cost = steps(&it.loop_cond) + steps(&it.loop_step);
    let literal = |value| Expression { id: 0, expr: Expr::Literal(value) };
    let cost = literal(LiteralValue::Int((cost as i64).into()));
    let spend = call(SPEND, vec![cost]);
    let condition = std::mem::take(&mut it.loop_cond);
    it.loop_cond = call(operators::LOGICAL_AND, vec![spend, condition]);
}

fn call(name: &str, args: Vec<Expression>) -> Expression {
    Expression { id: 0, expr: Expr::Call(CallExpr { target: None, func_name: name.to_string(), args }) }
}

/// Counts the nodes of an expression: its steps when each loop runs once.
fn steps(expression: &Expression) -> u64 {
    1 + parts(expression).into_iter().map(steps).sum::<u64>()
}
