//! Objects as users write them: mostly right, sometimes not.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

/// The kinds that sequences are about: plural, kind.
pub const KINDS: &[(&str, &str)] = &[("disks", "Disk"), ("widgets", "Widget"), ("gadgets", "Gadget")];

/// One of several, each as likely as the other.
pub fn pick<T: Clone>(rng: &mut StdRng, all: &[T]) -> T {
    all.choose(rng).cloned().unwrap_or_else(|| all[0].clone())
}

/// True once in `n` times.
pub fn once_in(rng: &mut StdRng, n: u32) -> bool {
    rng.random_ratio(1, n)
}

/// An object of a kind with a name.
pub fn object(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Value {
    let mut object = json!({"apiVersion": "test.example/v1", "kind": kind, "metadata": metadata(rng, name)});
    if !once_in(rng, 15) {
        object["spec"] = spec(rng, plural);
    }
    if once_in(rng, 6) {
        object["status"] = status(rng, plural);
    }
    if once_in(rng, 12) {
        spoil(rng, &mut object);
    }
    object
}

/// A spec of a kind.
pub fn spec(rng: &mut StdRng, plural: &str) -> Value {
    match plural {
        "disks" => disk_spec(rng),
        "gadgets" => super::gadgets::spec(rng),
        "zones" => pick(rng, &[json!({"city": "x"}), json!({"city": "y"}), json!({}), json!({"city": 1, "odd": 2})]),
        _ => widget_spec(rng),
    }
}

/// Metadata; the name is left out where it is empty.
pub fn metadata(rng: &mut StdRng, name: &str) -> Value {
    let mut metadata = Map::new();
    if !name.is_empty() {
        metadata.insert("name".into(), name.into());
    }
    if once_in(rng, 2) {
        metadata.insert("labels".into(), labels(rng));
    }
    if once_in(rng, 5) {
        let value = pick(rng, &[json!({"note": "one"}), json!({"note": "two", "more": ""}), json!({}), Value::Null]);
        metadata.insert("annotations".into(), value);
    }
    if once_in(rng, 12) {
        let value = pick(
            rng,
            &[json!(["test.example/hold"]), json!(["test.example/hold", "test.example/two"]), json!(["bad"])],
        );
        metadata.insert("finalizers".into(), value);
    }
    if once_in(rng, 20) {
        let owner = json!({"apiVersion": "test.example/v1", "kind": "Disk", "name": "a", "uid": "0dcb6f0c-0000-4000-8000-000000000001"});
        let twice = json!([owner, {"apiVersion": "test.example/v1", "kind": "Disk", "name": "b", "uid": ""}]);
        let value = pick(rng, &[json!([owner]), twice, json!([{"kind": "Disk"}])]);
        metadata.insert("ownerReferences".into(), value);
    }
    Value::Object(metadata)
}

/// Labels, some of which occur in selectors.
pub fn labels(rng: &mut StdRng) -> Value {
    let count = if once_in(rng, 10) { 8 } else { 5 };
    pick(
        rng,
        &[
            json!({"app": "a"}),
            json!({"app": "b"}),
            json!({"app": "a", "tier": "front"}),
            json!({"tier": ""}),
            json!({}),
            json!({"app": "not valid!"}),
            json!({"bad/key/x": "a"}),
            json!({"app": 1}),
        ][..count],
    )
}

fn disk_spec(rng: &mut StdRng) -> Value {
    let mut spec = Map::new();
    if !once_in(rng, 15) {
        let wrong = [json!(0), json!(1001), json!("5"), json!(5.5), Value::Null, json!(5.0), json!(1e2), json!(-3)];
        let size = if once_in(rng, 10) { pick(rng, &wrong) } else { json!(rng.random_range(1..5)) };
        spec.insert("sizeGb".into(), size);
    }
    let optional: &[(&str, &[Value], &[Value])] = &[
        ("class", &[json!("standard"), json!("fast")], &[json!("slow"), json!(3), Value::Null]),
        ("user", &[json!("ann"), json!("bob"), json!("")], &[json!(true), Value::Null]),
        ("copies", &[json!(1), json!(2)], &[json!("1"), Value::Null]),
        (
            "mounts",
            &[
                json!([{"path": "/a"}]),
                json!([{"path": "/b", "mode": "ro"}, {"path": "/a"}]),
                json!([{"path": "/a", "mode": "ro"}]),
                json!([{"path": "/c"}, {"path": "/b"}]),
                json!([]),
            ],
            &[json!([{"path": "/a"}, {"path": "/a"}]), json!([{"mode": "rw"}]), json!("x"), json!([1]), Value::Null],
        ),
        (
            "tags",
            &[json!(["x"]), json!(["y", "x"]), json!(["x", "z"]), json!([])],
            &[json!(["x", "x"]), json!([1, "1"]), json!({}), Value::Null],
        ),
        ("unknown", &[], &[json!(1), json!({"deep": [1, 2]}), Value::Null]),
    ];
    fill(rng, &mut spec, optional);
    Value::Object(spec)
}

fn widget_spec(rng: &mut StdRng) -> Value {
    let mut spec = Map::new();
    let optional: &[(&str, &[Value], &[Value])] = &[
        ("name", &[json!("ab"), json!("cd")], &[json!(""), json!("toolongname"), json!("A1"), Value::Null]),
        (
            "size",
            &[json!(1), json!(4), json!(7)],
            &[json!(11), json!(-1), json!(2.5), json!(3_000_000_000_i64), json!("1")],
        ),
        (
            "ratio",
            &[json!(0.5), json!(2), json!(1.5), json!(100_000_000_000_000_000_000_000_f64)],
            &[json!(0), json!(0.3), json!("0.5")],
        ),
        ("on", &[json!(true), json!(false)], &[json!("true"), Value::Null]),
        ("port", &[json!(80), json!("http"), json!("80%")], &[json!(1.5), json!(true), json!([]), Value::Null]),
        ("mode", &[json!("auto"), json!("manual")], &[json!("other"), Value::Null]),
        ("note", &[json!("text"), Value::Null, json!("")], &[json!(1)]),
        (
            "when",
            &[json!("2026-01-02T03:04:05Z"), json!("2026-01-02T03:04:05.5+02:00")],
            &[json!("yesterday"), json!("2026-01-02")],
        ),
        ("ip", &[json!("10.0.0.1"), json!("10.0.0.2")], &[json!("10.0.0"), json!("::1"), json!("256.1.1.1")]),
        ("code", &[json!("aGVsbG8="), json!("")], &[json!("not base64!"), json!("aGVsbG8")]),
        ("pause", &[json!("5s"), json!("1h30m")], &[json!("5"), json!("long")]),
        (
            "args",
            &[json!(["-v"]), json!(["-v", "x"]), json!([])],
            &[json!(["bad", "x"]), json!(["1", "2", "3", "4"]), json!([1])],
        ),
        ("tags", &[json!(["x"]), json!(["y", "x"]), json!(["z"])], &[json!(["x", "x"]), json!([null])]),
        (
            "ports",
            &[
                json!([{"number": 80}]),
                json!([{"number": 80, "name": "web"}, {"number": 53, "protocol": "UDP"}]),
                json!([{"number": 53, "protocol": "UDP", "name": "dns"}, {"number": 53}]),
            ],
            &[
                json!([{"number": 80}, {"number": 80, "protocol": "TCP"}]),
                json!([{"name": "x"}]),
                json!([{"number": "80"}]),
            ],
        ),
        ("matrix", &[json!([[1, 2], [3]]), json!([[]]), json!([])], &[json!([1]), json!([["x"]])]),
        (
            "settings",
            &[json!({"a": "1"}), json!({"b": "2", "a": "3"}), json!({})],
            &[json!({"a": 1}), json!({"a": "", "b": "", "c": "", "d": ""}), json!({"a": null})],
        ),
        (
            "pair",
            &[json!({"left": "1"}), json!({"left": "1", "right": "2"}), json!({"right": "2"})],
            &[json!({"middle": "x"}), json!([])],
        ),
        ("free", &[json!({"any": {"thing": [1, "x", null]}}), json!({"x": 1.0}), json!({})], &[json!(1), json!([])]),
        (
            "nested",
            &[json!({}), json!({"depth": 2}), json!({"inner": {}}), json!({"inner": {"text": "x"}})],
            &[json!({"depth": null}), json!({"inner": null}), json!({"odd": 1})],
        ),
        ("choice", &[json!({"a": "x"}), json!({"b": 1})], &[json!({}), json!({"a": "x", "b": 1}), json!({"a": 1})]),
        (
            "template",
            &[
                json!({"apiVersion": "v1", "kind": "Pod", "spec": {"x": 1}}),
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 1}}),
            ],
            &[
                json!({"kind": "Pod"}),
                json!({}),
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "Bad Name"}}),
                json!({"apiVersion": "a/b/c", "kind": "Pod"}),
            ],
        ),
        ("unknown", &[], &[json!("x")]),
    ];
    fill(rng, &mut spec, optional);
    Value::Object(spec)
}

/// Takes a few of the fields, each with its right and its wrong values: right ones mostly.
pub(super) fn fill<V: AsRef<[Value]>>(rng: &mut StdRng, spec: &mut Map<String, Value>, optional: &[(&str, V, V)]) {
    let chance = (optional.len() as u32 / 3).max(2);
    for (name, right, wrong) in optional {
        if !once_in(rng, chance) {
            continue;
        }
        let (right, wrong) = (right.as_ref(), wrong.as_ref());
        let all = if right.is_empty() || (!wrong.is_empty() && once_in(rng, 10)) { wrong } else { right };
        spec.insert((*name).into(), pick(rng, all));
    }
}

/// A status.
pub fn status(rng: &mut StdRng, plural: &str) -> Value {
    let disks = [
        json!({"phase": "Ready"}),
        json!({"phase": "Lost", "copies": 2}),
        json!({}),
        json!({"phase": 1}),
        json!({"odd": 1}),
    ];
    let widgets = [
        json!({"observed": 1, "phase": "New"}),
        json!({"conditions": [{"type": "Ready", "status": "True"}]}),
        json!({"conditions": [{"type": "Ready", "status": "False", "reason": "No"}, {"type": "Seen", "status": "True"}]}),
        json!({"phase": "Old"}),
        json!({"phase": "Ancient"}),
        json!({"conditions": [{"type": "Ready"}]}),
        json!({"observed": 9_007_199_254_740_993_i64}),
    ];
    let gadgets = [
        json!({"phase": "Ready", "count": 1}),
        json!({"count": 0}),
        json!({"phase": null}),
        json!({"count": -1}),
        json!({"odd": 1}),
        json!([]),
    ];
    match plural {
        "disks" => pick(rng, &disks),
        "gadgets" => pick(rng, &gadgets),
        _ => pick(rng, &widgets),
    }
}

/// The `managedFields` that clients send: nothing, one empty entry, another manager's, nonsense.
pub fn managed_fields(rng: &mut StdRng) -> Value {
    let entry = |operation: &str, fields: Value| {
        json!([{
            "manager": "four", "operation": operation, "apiVersion": "test.example/v1", "time": "2026-01-02T03:04:05Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        }])
    };
    let spec = json!({"f:spec": {"f:size": {}, "f:sizeGb": {}, "f:owner": {}}});
    pick(
        rng,
        &[
            json!([]),
            json!([{}]),
            Value::Null,
            entry("Apply", spec.clone()),
            entry("Update", spec.clone()),
            entry("Odd", spec),
            entry("Apply", json!({"f:spec": 1})),
            entry("Apply", json!({"spec": {}})),
        ],
    )
}

/// Breaks something in it that no schema describes.
fn spoil(rng: &mut StdRng, object: &mut Value) {
    match rng.random_range(0..15) {
        0 => object["kind"] = json!("Other"),
        1 => object["apiVersion"] = json!("test.example/v2"),
        2 => object["metadata"]["namespace"] = json!("elsewhere"),
        3 => object["metadata"]["uid"] = json!("mine"),
        4 => object["metadata"]["generation"] = json!(7),
        5 => object["metadata"]["unknown"] = json!(1),
        6 => object["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z"),
        7 => object["metadata"]["resourceVersion"] = json!("1"),
        8 => object["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z"),
        9 => object["top"] = json!("level"),
        10 => object["metadata"]["managedFields"] = json!([]),
        11 => object["metadata"]["managedFields"] = managed_fields(rng),
        12 => object["apiVersion"] = pick(rng, &[json!("v1"), json!(""), json!("other.example/v1")]),
        13 => object["metadata"]["generateName"] = json!("gen-"),
        _ => object["metadata"]["selfLink"] = json!("/x"),
    }
}
