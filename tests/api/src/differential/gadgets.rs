//! Specs of the kind for the newer parts of a schema.

use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::bodies::fill;

/// A spec: right mostly.
pub fn spec(rng: &mut StdRng) -> Value {
    let mut spec = Map::new();
    fill(rng, &mut spec, &scalars());
    fill(rng, &mut spec, &structures());
    Value::Object(spec)
}

/// The name of a field, right values, wrong ones.
type Field = (&'static str, Vec<Value>, Vec<Value>);

fn scalars() -> Vec<Field> {
    vec![
        (
            "owner",
            vec![json!("ann"), json!("bob"), Value::Null],
            vec![json!("nobody"), json!(1), json!("x".repeat(30))],
        ),
        ("group", vec![json!("g")], vec![json!("h"), Value::Null]),
        ("level", vec![json!(1), json!(2), json!(3)], vec![json!(0), json!("2"), json!(1.5), Value::Null]),
        ("amount", vec![json!("1Gi"), json!("100m"), json!("1e3")], vec![json!("3Gi"), json!("lots"), json!("")]),
        (
            "either",
            vec![json!(5), json!("50%"), json!("7")],
            vec![json!(101), json!("x"), json!(true), json!(1.5), json!([])],
        ),
        ("day", vec![json!("2026-01-02")], vec![json!("2026-13-02"), json!("today"), json!("2026-1-2")]),
        (
            "key",
            vec![json!("0dcb6f0c-0000-4000-8000-000000000001")],
            vec![json!("0dcb6f0c"), json!("0DCB6F0C00004000800000000000000x")],
        ),
        ("mail", vec![json!("a@b.example")], vec![json!("nobody"), json!("@")]),
        ("link", vec![json!("https://a.example/x?y=1"), json!("/path")], vec![json!("::"), json!("a b"), json!("")]),
        ("exact", vec![json!(0.25), json!(9.75), json!(3)], vec![json!(10), json!(0.3), json!("1")]),
        ("many", vec![json!([true]), json!([true, true])], vec![json!([]), json!([1]), json!([null])]),
        ("anything", vec![json!(1), json!("x"), json!({"a": [null]}), Value::Null, json!([])], vec![]),
        ("unknown", vec![], vec![json!({"x": 1})]),
    ]
}

fn structures() -> Vec<Field> {
    vec![
        (
            "limits",
            vec![json!({"cpu": 1}), json!({"cpu": 2, "disk": 3}), json!({})],
            vec![json!({"cpu": -1}), json!({"bad": 1}), json!({"cpu": 60}), json!({"cpu": "1"}), json!({"cpu": null})],
        ),
        (
            "steps",
            vec![
                json!([{"order": 0}]),
                json!([{"order": 1, "run": "x"}, {"order": 2, "args": ["a", "b"]}]),
                json!([{"order": 3, "run": null}]),
                json!([]),
            ],
            vec![
                json!([{"order": 2}, {"order": 1}]),
                json!([{"order": -1}]),
                json!([{"order": 0}, {"order": 0}]),
                json!([{"run": "x"}]),
                json!([{"order": 1, "args": ["a", "a"]}]),
                json!([null]),
            ],
        ),
        (
            "routes",
            vec![
                json!([{"host": "a"}]),
                json!([{"host": "a", "weight": 3, "backends": [{"name": "x"}, {"name": "x", "port": 81}]}, {"host": "b"}]),
                json!([{"host": "b", "backends": [{"name": "y", "state": null}]}, {"host": "a", "weight": 2}]),
                json!([{"host": "a", "backends": [{"name": "z", "state": "down"}]}]),
            ],
            vec![
                json!([{"host": "b"}]),
                json!([{"host": "a"}, {"host": "a"}]),
                json!([{"host": "a", "weight": 20}]),
                json!([{"host": "a", "weight": null}]),
                json!([{"host": "a", "backends": [{"name": "x"}, {"name": "x", "port": 80}]}]),
                json!([{"weight": 1}]),
                json!([{"host": "a", "odd": 1}]),
            ],
        ),
        ("numbers", vec![json!([1, 2]), json!([2, 3]), json!([])], vec![json!([1, 1]), json!([2, 2]), json!(["1"])]),
        (
            "tree",
            vec![
                json!({}),
                json!({"known": 1, "other": {"x": [1]}}),
                json!({"inner": {"text": "t"}}),
                json!({"other": {"y": null}}),
            ],
            vec![json!({"known": "x"}), json!({"inner": {"text": 1, "odd": 2}}), json!({"known": null})],
        ),
        (
            "parts",
            vec![
                json!([{"apiVersion": "v1", "kind": "Part"}]),
                json!([{"apiVersion": "v1", "kind": "Part", "metadata": {"name": "p"}, "spec": {"odd": 1}}]),
            ],
            vec![
                json!([{}]),
                json!([{"apiVersion": "v1", "kind": ""}]),
                json!([{"apiVersion": "v1", "kind": "Part", "metadata": {"labels": {"a": 1}}}]),
            ],
        ),
        (
            "table",
            vec![json!({"one": {}}), json!({"one": {"x": 4}, "two": {"y": null}}), json!({"one": null})],
            vec![json!({"one": 1}), json!({"one": {"x": null}}), json!({"one": {"odd": 1}})],
        ),
        (
            "fallback",
            vec![json!({}), Value::Null, json!({"depth": null}), json!({"depth": 1, "names": ["two"]})],
            vec![json!({"names": null}), json!({"depth": "x"}), json!([])],
        ),
        ("block", vec![json!({"a": "1"}), json!({"b": "2"}), json!({})], vec![json!({"a": 1}), json!({"a": null})]),
        (
            "alone",
            vec![json!({"a": "x"}), json!({"b": "y", "c": "y"})],
            vec![json!({"a": "x", "b": "y"}), json!({}), json!({"c": "z"})],
        ),
    ]
}
