//! Limits the cost of rules. Rules loop over the input of clients, loops can be nested, and each iteration may copy a list:
//! without a bound one object of 1.5 MB keeps a processor busy for hours.
//!
//! The library has no limit of its own, so everything whose cost depends on values is counted: [`super::install`] rewrites each
//! compiled expression so that it asks here before or after such work. Only steps are counted, never time: an object that an idle
//! host accepts is accepted by a busy one.

use super::tree::steps;
use super::weights::Weight;
use kube_cel::cel::parser::Expression;
use kube_cel::cel::{Context, ExecutionError, Value};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Steps of one rule and of all rules for one object, as in Kubernetes. Lower limits refuse rules that are in use, higher ones let a
/// client occupy a processor: a step takes some 100 to 300 ns.
const RULE_STEPS: u64 = 1_000_000;
const OBJECT_STEPS: u64 = 10_000_000;

/// Kubernetes' message when the budget of an object is spent before a rule.
pub(super) const NOTHING_LEFT: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// cel-go's message.
const TOO_EXPENSIVE: &str = "operation cancelled: actual cost limit exceeded";

/// Stack for an evaluation. The deepest expressions need a quarter of it, in a build without optimisation.
const STACK_BYTES: usize = 16 << 20;

/// The stack of threads that serve requests, in bytes. With less than an evaluation and its callers need, each write maps a stack of its own,
/// which costs a third of a create; more costs addresses only.
pub const THREAD_STACK_BYTES: usize = 2 * STACK_BYTES;

/// Runs evaluations on a stack that is large enough, whatever the caller's thread has left.
pub(super) fn with_stack<T>(evaluate: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_BYTES, STACK_BYTES, evaluate)
}

thread_local! {
    /// The budget that the evaluation on this thread has left.
    static LEFT: Cell<Option<Weight>> = const { Cell::new(None) };
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
    left: Weight,
    /// Set once the budget was reported as exceeded: the remaining rules are skipped.
    pub(super) is_over: bool,
}

impl Budget {
    pub(super) fn of_object() -> Self {
        Budget { left: Weight::of_steps(OBJECT_STEPS), is_over: false }
    }

    /// A smaller one.
    #[cfg(test)]
    pub(super) fn of_steps(steps: u64) -> Self {
        Budget { left: Weight::of_steps(steps), is_over: false }
    }

    /// Whether the budget is spent.
    pub(super) fn is_spent(&self) -> bool {
        self.left == Weight::NONE
    }

    /// Evaluates an expression within the budget. A panic of the library is an error like any other: the object is refused with a
    /// message.
    pub(super) fn run(
        &mut self,
        Metered { expression, steps }: &Metered,
        context: &Context,
    ) -> Result<Value, ExecutionError> {
        let own = Weight::of_steps(*steps);
        let given = self.left.min(Weight::of_steps(RULE_STEPS)).minus(own);
        let before = LEFT.replace(Some(given));
        let out = catch_unwind(AssertUnwindSafe(|| context.resolve(expression))).unwrap_or_else(|_| {
            tracing::error!(?expression, "the evaluation of a rule panicked");
            Err(ExecutionError::function_error("rule", "internal error"))
        });
        let left = LEFT.replace(before).unwrap_or(Weight::NONE);
        self.left = self.left.minus(own).minus(given.minus(left));
        out
    }

    /// Returns the budget that was not spent.
    #[cfg(test)]
    pub(super) fn left(&self) -> Weight {
        self.left
    }
}

/// Whether this thread parses or evaluates a rule; panics are then caught.
#[cfg(fuzzing)]
pub(crate) fn is_running() -> bool {
    LEFT.get().is_some() || std::thread::current().name() == Some(super::tree::PARSER)
}

/// Returns the reason if an evaluation failed because of its cost; further rules are then not run.
pub(super) fn exceeded(error: &ExecutionError) -> Option<&'static str> {
    error.to_string().contains(TOO_EXPENSIVE).then_some(TOO_EXPENSIVE)
}

/// Takes from the budget of the evaluation on this thread, for the function `name`.
pub(super) fn spend(name: &str, weight: Weight) -> Result<(), ExecutionError> {
    let Some(left) = LEFT.get() else { return Ok(()) };
    LEFT.set(Some(left.minus(weight)));
    if left < weight { Err(ExecutionError::function_error(name, TOO_EXPENSIVE)) } else { Ok(()) }
}
