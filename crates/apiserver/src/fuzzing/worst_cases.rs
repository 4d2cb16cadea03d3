//! No request costs more than in proportion to its size: every decoder against the bodies that are worst for it.
//!
//! A body four times as long may take four times the processor's time, and not sixteen times as work with a loop in a loop does. What
//! is compared is the time that the processor gave to this thread, so other load does not count.

use std::hint::black_box;

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::http::request::{content, metadata};
use crate::object::apply::{Writer, server_side_apply, track_update};
use crate::object::error::{ApiError, Named};
use crate::object::field_error::FieldError;
use crate::object::meta_validate::validate_metadata;
use crate::object::patch::{MAX_MOVED, apply_json_patch, apply_merge_patch, json_patch_problems, merge_patch_problems};
use crate::object::schema::Model;

/// How much longer the second body is.
const FACTOR: usize = 4;
/// Between linear growth (4) and quadratic growth (16).
const MOST: f64 = 9.0;
/// Measurements of a case before it has failed: a cold cache may spoil one.
const ATTEMPTS: usize = 4;

/// The least nanoseconds that are distinguishable from the kernel's steps of some milliseconds.
const MEASURABLE: u64 = 40_000_000;

/// Nanoseconds that the processor gave to this thread.
fn spent() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts");
    text.split(' ').next().and_then(|it| it.parse().ok()).expect("a number")
}

/// Returns the average duration of the work, over as many runs as can be measured.
fn cost<B>(body: &B, work: impl Fn(&B)) -> f64 {
    let (before, mut times) = (spent(), 0);
    loop {
        work(body);
        times += 1;
        let spent = spent() - before;
        if spent > MEASURABLE {
            return spent as f64 / f64::from(times);
        }
    }
}

/// Bodies of a size given in entries, and what reads them.
fn linear<B>(name: &str, entries: usize, body: impl Fn(usize) -> B, work: impl Fn(&B)) {
    let (small, large) = (body(entries), body(FACTOR * entries));
    let mut ratio = f64::MAX;
    for _ in 0..ATTEMPTS {
        ratio = ratio.min(cost(&large, &work) / cost(&small, &work));
        if ratio < MOST {
            return;
        }
    }
    panic!("{name}: {FACTOR} times the body takes {ratio:.1} times the work");
}

/// `{a0: 1, …}`, each entry as often as it says.
fn object_text(entries: usize, times: usize) -> String {
    let entry = |number: usize| format!("\"a{}\":1", number / times);
    format!("{{{}}}", (0..entries).map(entry).collect::<Vec<_>>().join(","))
}

/// Half of the body is one name, the other half stands below it.
fn below_long_name(entries: usize, below: &str) -> String {
    format!("{{\"spec\":{{\"map\":{{\"{}\":{below}}}}}}}", "n".repeat(entries * 6))
}

fn wrong_items(entries: usize) -> String {
    format!("[{}]", vec!["true"; entries].join(","))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("the body")
}

fn decode(media_type: &'static str, body: &str) {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    black_box(content::decode_object(&headers, body.as_bytes()).ok());
}

fn model() -> Model {
    let text = json!({"type": "string", "maxLength": 3, "pattern": "^[a-z]*$"});
    let keyed =
        json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "string"}}});
    let rule = json!([{"rule": "self.size() > 0"}]);
    Model::compile(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "texts": {"type": "array", "items": text},
        "unique": {"type": "array", "uniqueItems": true, "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": keyed},
        "ruled": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": rule}},
        "map": {"type": "object", "additionalProperties": {"type": "array", "items": text}},
        "any": {"type": "array", "items": {"anyOf": [{"maxLength": 1}, {"maxLength": 2}], "type": "string"}},
    }}}}))
    .expect("the schema")
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "o", "resourceVersion": "1"}, "spec": spec})
}

fn list(entries: usize, item: impl Fn(usize) -> Value) -> Value {
    Value::Array((0..entries).map(item).collect())
}

#[test]
fn decoders_are_linear() {
    for (media_type, entries) in [("application/json", 20_000), ("application/yaml", 4_000)] {
        let bodies: [(&str, &dyn Fn(usize) -> String); 6] = [
            ("different keys", &|n| object_text(n, 1)),
            ("keys twice", &|n| object_text(n, 2)),
            ("one key", &|n| object_text(n, n)),
            ("keys twice below a long name", &|n| below_long_name(n, &object_text(n, 2))),
            ("a long list", &wrong_items),
            ("escapes", &|n| format!("{{\"a\":\"{}\"}}", "\\u00e4\\n".repeat(n))),
        ];
        for (name, body) in bodies {
            linear(&format!("{media_type}, {name}"), entries, body, |body| decode(media_type, body));
        }
    }
    linear(
        "yaml, lines of keys twice",
        4_000,
        |n| (0..n).map(|i| format!("a{}: 1\n", i / 2)).collect(),
        |body: &String| {
            decode("application/yaml", body);
        },
    );
    linear(
        "json, merge patch's problems",
        20_000,
        |n| object_text(n, 2),
        |body| {
            black_box(merge_patch_problems(body.as_bytes()));
        },
    );
    linear(
        "json, a patch's problems",
        20_000,
        |n| format!("[{}]", object_text(n, 2)),
        |body| {
            black_box(json_patch_problems(body.as_bytes()));
        },
    );
}

#[test]
fn unknown_fields_and_metadata_are_linear() {
    let model = model();
    let bodies: [(&str, &dyn Fn(usize) -> Value); 4] = [
        ("unknown fields", &|n| object(parsed(&object_text(n, 1)))),
        ("unknown fields of items", &|n| {
            object(json!({"keyed": list(n, |i| json!({"k": "a", (format!("a{i}")): 1}))}))
        }),
        ("unknown below a long name", &|n| parsed(&below_long_name(n, &format!("[{}]", object_text(n, 1))))),
        ("unknown in metadata", &|n| json!({"metadata": parsed(&object_text(n, 1))})),
    ];
    for (name, body) in bodies {
        linear(name, 10_000, body, |body| {
            let mut body = body.clone();
            black_box(metadata::admit(&mut body).ok());
            black_box(model.prune(&mut body));
            model.default(&mut body);
        });
    }
    let metadata: [(&str, &dyn Fn(usize) -> Value); 3] = [
        ("labels", &|n| json!({"labels": parsed(&object_text(n, 1).replace(":1", ":\"-\""))})),
        (
            "finalizers",
            &|n| json!({"finalizers": list(n, |i| format!("f/{i}").into()), "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        ),
        ("controllers", &|n| json!({"ownerReferences": list(n, |_| json!({"controller": true}))})),
    ];
    for (name, body) in metadata {
        linear(
            name,
            5_000,
            |n| json!({"metadata": body(n)}),
            |body| {
                let old = json!({"metadata": {"finalizers": body.pointer("/metadata/finalizers"), "deletionTimestamp": "2026-01-01T00:00:00Z"}});
                refuse(&validate_metadata(body, Some(&old), true));
            },
        );
    }
}

fn refuse(errors: &[FieldError]) {
    let error = ApiError::invalid(Named { group: "g", resource: "K", name: "o" }, errors);
    assert!(error.to_status().to_string().len() < 4 << 20, "the answer is bounded");
}

#[test]
fn validation_is_linear() {
    let model = model();
    let bodies: [(&str, &dyn Fn(usize) -> Value); 8] = [
        ("wrong items", &|n| json!({"texts": parsed(&wrong_items(n))})),
        ("long items", &|n| json!({"texts": list(n, |i| format!("TOO LONG {i}").into())})),
        ("different items", &|n| json!({"unique": list(n, |i| i.into()), "set": list(n, |i| i.into())})),
        ("equal items", &|n| json!({"unique": list(n, |i| (i / 2).into()), "set": list(n, |i| (i / 2).into())})),
        ("keyed items", &|n| json!({"keyed": list(n, |i| json!({"k": i.to_string(), "v": "x"}))})),
        ("ruled items", &|n| json!({"ruled": list(n / 16, |i| i.to_string().into())})),
        ("alternatives", &|n| json!({"any": list(n, |i| i.to_string().into())})),
        ("wrong below a long name", &|n| parsed(&below_long_name(n, &wrong_items(n)))["spec"].take()),
    ];
    for (name, body) in bodies {
        // The last item differs from the old one: the lists are never equal, and have to be looked at to the end.
        let changed = |spec: &Value| {
            let mut old = object(spec.clone());
            old["spec"]["texts"] = json!(["a"]);
            for list in old["spec"].as_object_mut().into_iter().flat_map(|it| it.values_mut()) {
                list.as_array_mut().and_then(Vec::pop);
            }
            old
        };
        linear(
            name,
            2_000,
            |n| (object(body(n)), changed(&body(n))),
            |(new, old)| {
                refuse(&model.validate(new, None));
                refuse(&model.validate(new, Some(old)));
            },
        );
    }
}

#[test]
fn patches_are_linear() {
    let data = |n: usize| json!({"data": parsed(&object_text(n, 1))});
    let removing = |n: usize| object_text(n, 1).replace(":1", ":null");
    linear(
        "merge patch of nulls",
        10_000,
        |n| (data(n), format!("{{\"data\":{}}}", removing(n))),
        |(object, patch)| {
            black_box(apply_merge_patch(object, patch.as_bytes()).ok());
        },
    );
    let owners = |n: usize| list(n, |i| json!({"uid": i.to_string()}));
    let finalizers = |n: usize| list(n, |i| i.to_string().into());
    let strategic = |n: usize| {
        let object = json!({"metadata": {"finalizers": finalizers(n), "ownerReferences": owners(n)}, "data": parsed(&object_text(n, 1))});
        let deleted = list(n, |i| json!({"uid": i.to_string(), "$patch": "delete"}));
        let patch = json!({"data": parsed(&removing(n)), "metadata": {
            "finalizers": list(n, |i| (i + n).to_string().into()), "ownerReferences": deleted,
            "$setElementOrder/finalizers": finalizers(n), "$deleteFromPrimitiveList/finalizers": finalizers(n)}});
        (object, patch.to_string())
    };
    linear("strategic patch", 2_000, strategic, |(object, patch)| {
        black_box(crate::http::verbs::strategic::apply(object, patch.as_bytes()).ok());
    });
}

#[test]
fn a_json_patch_moves_a_bounded_number_of_entries() {
    let object = json!({"l": vec![0; 30_000]});
    let removals = |n: usize| Value::Array(vec![json!({"op": "remove", "path": "/l/0"}); n]).to_string();
    const { assert!(30_000 * 600 < MAX_MOVED && 30_000 * 700 > MAX_MOVED) };
    assert!(apply_json_patch(&object, removals(600).as_bytes()).is_ok());
    assert!(apply_json_patch(&object, removals(1_000).as_bytes()).is_err(), "ten thousand would be minutes");
    let fields = json!({"m": parsed(&object_text(30_000, 1))});
    let removals: Vec<Value> = (0..1_000).map(|i| json!({"op": "remove", "path": format!("/m/a{i}")})).collect();
    assert!(apply_json_patch(&fields, Value::Array(removals).to_string().as_bytes()).is_err());
}

#[test]
fn apply_is_linear() {
    let model = model();
    let writer = |manager| Writer {
        manager,
        subresource: "",
        api_version: "g/v1",
        has_status: false,
        now: "2026-01-01T00:00:00Z",
    };
    let bodies: [(&str, &dyn Fn(usize) -> Value); 4] = [
        ("apply of keyed items", &|n| json!({"keyed": list(n, |i| json!({"k": i.to_string(), "v": "x"}))})),
        ("apply of a set", &|n| json!({"set": list(n, |i| i.into())})),
        ("apply of wrong items below a long name", &|n| parsed(&below_long_name(n, &wrong_items(n)))["spec"].take()),
        ("apply of undeclared fields", &|n| parsed(&object_text(n, 1))),
    ];
    for (name, body) in bodies {
        linear(
            name,
            1_000,
            |n| object(body(n)),
            |applied| {
                let mut live = applied.clone();
                track_update(&model, None, &mut live, &writer("one"));
                let mut applied = applied.clone();
                applied["spec"]["texts"] = json!(["b"]);
                black_box(server_side_apply(&model, Some(&live), &applied, true, &writer("two")).ok());
            },
        );
    }
}
