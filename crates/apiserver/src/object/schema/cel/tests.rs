//! The cost of rules, and the rules that a write of `status` evaluates.

use kube_cel::cel::parser::Expression;
use serde_json::{Value, json};

use super::expression::{BASE, parse};
use super::meter::{Budget, Metered, THREAD_STACK_BYTES, exceeded, with_stack};
use super::value::to_cel;
use super::weights::Weight;
use crate::object::field_error::FieldError;
use crate::object::schema::{Model, Node};

fn lines(errors: Vec<FieldError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Evaluates a rule of an object; what it cost, `None` if that was too much.
fn cost(rule: &str, object: &Value, steps: u64) -> Option<Weight> {
    let expression: Expression = parse(rule).unwrap_or_else(|problem| panic!("{rule}: {problem}"));
    let mut context = BASE.new_inner_scope();
    context.add_variable_from_value("self", to_cel(object, &Node::default()));
    let mut budget = Budget::of_steps(steps);
    let before = budget.left();
    match budget.run(&Metered::from(expression), &context) {
        Err(error) if exceeded(&error).is_some() => None,
        Err(error) => panic!("{rule}: {error}"),
        Ok(_) => Some(before.minus(budget.left())),
    }
}

/// Everything whose work grows with its input is counted, so that no rule needs a clock: the cost of each of these grows at least
/// as fast as what they work on.
#[test]
fn work_that_grows_with_the_input_costs_more_steps() {
    let object = |count: usize| {
        json!({
            "text": "a".repeat(count), "other": "a".repeat(count), "words": "a ".repeat(count / 2),
            "list": (0..count).map(|it| it.to_string()).collect::<Vec<_>>(),
            "same": (0..count).map(|it| it.to_string()).collect::<Vec<_>>(),
            "map": (0..count).map(|it| (it.to_string(), json!(it))).collect::<serde_json::Map<_, _>>(),
        })
    };
    for rule in [
        "self.text == self.other",
        "self.text < self.other",
        "self.text + self.other == ''",
        "self.list == self.same",
        "self.map == self.map",
        "'x' in self.list",
        "self.text in self.map",
        "self.list + self.same == []",
        "size(self.text) > 0",
        "self.list.size() > 0",
        "[self.list].size() == 1",
        "{'a': self.list}.size() == 1",
        "self[?'list'].hasValue()",
        "self.map[?self.text].hasValue()",
        "self.text.contains('b')",
        "self.text.matches('a*b')",
        "self.text.find('b') == ''",
        "self.words.findAll('a').size() > 0",
        "self.words.split(' ').size() > 0",
        "self.text.replace('a', 'b') == ''",
        "self.text.indexOf('b') < 0",
        "self.list.join(',') == ''",
        "self.list.all(it, it != '')",
        "self.list.map(it, it).size() > 0",
        "self.list.filter(it, it != '').size() > 0",
        "self.list.exists_one(it, it == '1')",
        "self.map.all(key, value, value >= 0)",
        "self.list.sort().size() > 0",
        "self.list.distinct().size() > 0",
        "sets.contains(self.list, self.same)",
        "'%s'.format([self.text]) == ''",
        "base64.encode(bytes(self.text)) == ''",
    ] {
        let costs = [100, 200, 400]
            .map(|count| cost(rule, &object(count), 1_000_000).unwrap_or_else(|| panic!("{rule}: too much")));
        assert!(costs[1].minus(costs[0]) >= Weight::of_bytes(100), "{rule}: {costs:?}");
        assert!(costs[2].minus(costs[1]) >= Weight::of_bytes(200), "{rule}: {costs:?}");
    }
}

/// Work that is more than proportional to the object ends before it is done: none of these may take long or much memory.
#[test]
fn work_without_proportion_is_too_expensive() {
    let text = "a".repeat(1 << 16);
    let patterns: Vec<String> = (1..1_000).map(|it| format!("[a-z]{{{it},1000}}")).collect();
    let object = json!({"text": text, "list": vec!["a"; 3_000], "one": vec![text.clone()], "patterns": patterns});
    for rule in [
        "self.text.replace('', self.text) == ''",
        "self.list.join(self.text) == ''",
        "self.text.indexOf(self.text) == 0",
        "self.list.distinct().size() == 1",
        "sets.equivalent(self.list, self.list)",
        "self.list.all(it, self.text == self.text)",
        "self.list.all(it, !self.text.contains('b'))",
        "self.list.all(it, [self.text].size() == 1)",
        "self.list.all(it, self[?'text'].hasValue())",
        "self.list.map(it, it).size() > 0",
        "self.list.all(it, it in self.list)",
        "self.text.findAll('.*[^a-z]|[a-z]').size() > 0",
        "self.patterns.all(it, !'1'.matches(it))",
        "'%.999999999f'.format([1.0]) == ''",
        "self.one.map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a).size() == 1",
    ] {
        assert_eq!(cost(rule, &object, 50_000), None, "{rule}");
    }
}

/// A field of a large object is looked at where it is: what a rule does in a loop costs the same whatever else there is.
#[test]
fn a_field_is_not_copied() {
    let of =
        |count: usize| cost("[1, 2, 3].all(it, self.a.b >= it)", &json!({"a": {"b": 5, "c": vec!["x"; count]}}), 1_000);
    assert_eq!(of(1), of(100_000));
}

/// As deep as expressions may be, on the stack of a worker.
#[test]
fn the_deepest_expressions_fit_on_the_stack() {
    let nested = |open: &str, close: &str, inner: &str, times: usize| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for expression in [
        nested("size([", "])", "1", 19),
        nested("[1].map(x, ", ")", "1", 9),
        nested("string(", ")", "1", 38),
        nested("(1 + ", ")", "1", 38),
    ] {
        let parsed = parse(&expression);
        let Ok(parsed) = parsed else { continue };
        let worker = std::thread::Builder::new().stack_size(2 << 20);
        let evaluate = move || Budget::of_object().run(&Metered::from(parsed), &BASE.new_inner_scope()).is_ok();
        let ran = worker.spawn(|| with_stack(evaluate));
        assert!(ran.unwrap().join().unwrap(), "{expression}");
    }
}

/// Whether an evaluation leaves the stack of a thread of this size.
fn leaves_the_stack(bytes: usize) -> bool {
    let place = || std::ptr::from_ref(&stacker::remaining_stack()).addr();
    let worker = std::thread::Builder::new().stack_size(bytes);
    let apart = worker.spawn(move || place().abs_diff(with_stack(place)));
    apart.unwrap().join().unwrap() > 64 << 10
}

#[test]
fn threads_that_serve_requests_map_no_stack_for_each_evaluation() {
    assert!(!leaves_the_stack(THREAD_STACK_BYTES));
    assert!(leaves_the_stack(2 << 20), "the test sees a stack of its own");
}

#[test]
fn a_status_write_never_fails_for_the_rest() {
    let loops = "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, a + b + c + d >= 0))))";
    let model = Model::compile(&json!({"type": "object",
        "x-kubernetes-validations": [{"rule": "self.spec.l.size() < 3"}, {"rule": "self.status.n < self.spec.l.size()"}],
        "properties": {
        "spec": {"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"}}},
            "x-kubernetes-validations": [{"rule": loops}, {"rule": "self.l.size() < 3"}, {"rule": "self.none == 1"},
                {"rule": "self.l.size() > oldSelf.l.size()"}]},
        "status": {"type": "object", "properties": {"n": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.n < 5"}]},
    }}))
    .unwrap();
    let object = |n: i64| json!({"spec": {"l": (0..60).collect::<Vec<_>>()}, "status": {"n": n}});
    assert_ne!(lines(model.validate(&object(1), Some(&object(2)))), [""; 0], "the spec is refused");
    assert_eq!(lines(model.validate_status_after(&object(2), &object(1), &[])), [""; 0]);
    let refused = lines(model.validate_status_after(&object(9), &object(1), &[]));
    assert_eq!(refused, ["status: Invalid value: failed rule: self.n < 5"]);
    let refused = lines(model.validate_status_after(&object(99), &object(1), &[]));
    assert!(refused.iter().any(|it| it.contains("self.status.n < self.spec.l.size()")), "{refused:?}");
}
