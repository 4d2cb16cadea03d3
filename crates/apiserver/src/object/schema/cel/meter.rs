//! What a rule may cost. Rules loop over what clients send, loops stand in loops, and each turn may copy a list: without a bound one
//! object of 1.5 MB keeps a processor for hours.
//!
//! The library has no bound of its own, so the loops of a compiled expression are made to call [`SPEND`] before each turn, with the
//! number of steps that a turn takes. It fails once the budget of the evaluation is spent; and at a deadline, because what one step
//! costs depends on how large the values are.

use super::tree::{parts, parts_mut};
use kube_cel::cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use kube_cel::cel::parser::Expression;
use kube_cel::cel::{Context, ExecutionError, FunctionContext, Value};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Not a name that an expression can contain.
pub(super) const SPEND: &str = "@spend";

/// Steps of one rule and of all rules for one object, as in Kubernetes. Fewer refuse rules that are in use.
const RULE_STEPS: u64 = 1_000_000;
const OBJECT_STEPS: u64 = 10_000_000;

/// For all rules of one object. Shorter refuses large objects on a busy host; longer lets a client hold a processor.
const TIME: Duration = Duration::from_secs(2);

/// Kubernetes' words where the budget of an object is spent before a rule.
pub(super) const NOTHING_LEFT: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// cel-go's words.
const TOO_EXPENSIVE: &str = "operation cancelled: actual cost limit exceeded";
const TOO_LONG: &str = "operation interrupted: the rules took too long";

thread_local! {
    /// What the evaluation that runs on this thread may still take.
    static LEFT: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

/// An expression with the steps that it takes when each of its loops turns once.
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

/// What is left for the rules of one object.
pub(super) struct Budget {
    steps: u64,
    deadline: Instant,
    /// Set once this was told: what remains is not looked at.
    pub(super) is_over: bool,
}

impl Budget {
    pub(super) fn of_object() -> Self {
        Budget { steps: OBJECT_STEPS, deadline: Instant::now() + TIME, is_over: false }
    }

    /// Whether there is nothing left for further rules.
    pub(super) fn is_spent(&self) -> bool {
        self.steps == 0 || Instant::now() >= self.deadline
    }

    /// Evaluates an expression within the budget. A panic of the library is an error like any other: it refuses the object, and says so.
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

/// Whether this thread parses or evaluates a rule: panics are caught then.
#[cfg(fuzzing)]
pub(crate) fn is_running() -> bool {
    LEFT.get().is_some() || std::thread::current().name() == Some(super::tree::PARSER)
}

/// The reason, if an evaluation failed because of its cost: further rules are not run then.
pub(super) fn exceeded(error: &ExecutionError) -> Option<&'static str> {
    let text = error.to_string();
    [TOO_EXPENSIVE, TOO_LONG].into_iter().find(|reason| text.contains(reason))
}

/// Called by every loop before each turn, with the steps of a turn.
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

/// Puts the call of [`SPEND`] into every loop.
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

/// Nodes of an expression: its steps, each loop turned once.
fn steps(expression: &Expression) -> u64 {
    1 + parts(expression).into_iter().map(steps).sum::<u64>()
}
