//! CEL. First line: a rule; second: the object, of any form; third, if there is one: its predecessor.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{first_line, object};
use crate::object::schema::Model;

/// Far above what the counted steps of an object take.
const LONGEST: Duration = Duration::from_secs(8);

pub(super) fn cel(data: &[u8]) {
    let (rule, rest) = first_line(data);
    let (new, old) = first_line(rest);
    let Ok(rule) = std::str::from_utf8(rule) else { return };
    let properties = json!({
        "n": {"type": "integer"}, "d": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
        "l": {"type": "array", "items": {"type": "string"}}, "q": {"x-kubernetes-int-or-string": true},
        "m": {"type": "object", "additionalProperties": {"type": "integer"}},
        "t": {"type": "string", "format": "date-time"}, "p": {"type": "string", "format": "duration"},
        "x": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    });
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": properties, "x-kubernetes-validations": [{"rule": rule, "messageExpression": rule}],
    }}});
    let Ok(model) = Model::compile(&schema) else { return };
    let Some(new) = object(new) else { return };
    let (new, old) = (json!({"spec": new}), object(old).map(|old| json!({"spec": old})));
    let started = Instant::now();
    let errors = model.validate(&new, old.as_ref());
    let took = started.elapsed();
    assert!(took < LONGEST, "the rule took {took:?}");
    assert!(errors.iter().all(|error| !error.to_string().is_empty()));
    // Loops over maps have no order, in Kubernetes neither.
    let has_loop = ["all(", "exists", "map(", "filter("].iter().any(|it| rule.contains(it));
    if !has_loop && took < Duration::from_millis(100) {
        assert_eq!(model.validate(&new, old.as_ref()), errors, "the same object has the same errors");
    }
    let alone = Model::compile(&json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": schema["properties"]["spec"]["properties"]}}}))
    .expect("the schema without the rule");
    let without: Vec<_> = alone.validate(&new, old.as_ref());
    let is_in = |error| errors.contains(error);
    assert!(without.iter().all(is_in), "a rule hides no error of the schema: {without:?} {errors:?}");
    let _: Value = new;
}
