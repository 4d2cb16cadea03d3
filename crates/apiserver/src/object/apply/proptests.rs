//! Properties that hold for any objects.

use super::*;
use proptest::prelude::*;
use serde_json::Map;

fn model() -> Model {
    let item =
        json!({"type":"object","properties":{"name":{"type":"string"},"v":{"type":"string"},"w":{"type":"string"}}});
    Model::compile(&json!({"type":"object","properties":{"spec":{"type":"object","properties":{
        "a":{"type":"string"},"b":{"type":"string"},
        "struct":{"type":"object","properties":{"x":{"type":"string"},"y":{"type":"string"}}},
        "map":{"type":"object","additionalProperties":{"type":"string"}},
        "atomic":{"type":"array","items":{"type":"string"}},
        "set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
        "list":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],"items":item},
        "free":{"type":"object","x-kubernetes-preserve-unknown-fields":true}
    }}}}))
    .unwrap()
}

fn text() -> impl Strategy<Value = Value> {
    "[12]".prop_map(Value::from)
}

fn some(key: &'static str, value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<(String, Value)>> {
    prop::option::of(value.prop_map(move |v| (key.to_string(), v))).boxed()
}

fn fields(parts: Vec<BoxedStrategy<Option<(String, Value)>>>) -> BoxedStrategy<Value> {
    parts.prop_map(|entries| Value::Object(entries.into_iter().flatten().collect::<Map<_, _>>())).boxed()
}

fn distinct(items: BoxedStrategy<Value>, key: fn(&Value) -> Value) -> BoxedStrategy<Value> {
    prop::collection::vec(items, 0..4)
        .prop_map(move |items| {
            let mut out: Vec<Value> = Vec::new();
            for item in items {
                if !out.iter().any(|o| key(o) == key(&item)) {
                    out.push(item);
                }
            }
            Value::Array(out)
        })
        .boxed()
}

fn spec() -> BoxedStrategy<Value> {
    let item = ("[abc]", fields(vec![some("v", text()), some("w", text())])).prop_map(|(name, mut item)| {
        item["name"] = json!(name);
        item
    });
    fields(vec![
        some("a", text()),
        some("b", text()),
        some("struct", fields(vec![some("x", text()), some("y", text())])),
        some("map", fields(vec![some("k", text()), some("l", text())])),
        some("atomic", prop::collection::vec(text(), 0..3).prop_map(Value::Array)),
        some("set", distinct("[abc]".prop_map(Value::from).boxed(), Clone::clone)),
        some("list", distinct(item.boxed(), |item| item["name"].clone())),
        some("free", fields(vec![some("p", text()), some("q", fields(vec![some("r", text())]))])),
    ])
}

const NOW: &str = "2026-01-01T00:00:00Z";

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: "", api_version: "g/v1", has_status: false, now: NOW }
}

fn object(spec: &Value) -> Value {
    json!({"apiVersion":"g/v1","kind":"K","metadata":{"name":"o"},"spec":spec})
}

fn apply(live: Option<&Value>, spec: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    server_side_apply(&model(), live, &object(spec), force, &writer(manager))
}

/// All of the applied values are in the result: applied values win.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(k, w)| found.get(k).is_some_and(|f| contains(f, w)))
        }
        (Value::Array(found), Value::Array(wanted)) => wanted.iter().all(|w| found.iter().any(|f| contains(f, w))),
        (found, wanted) => found == wanted,
    }
}

fn paths() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let step = prop_oneof![
        "[a-c.\"{}:]{0,3}".prop_map(|n| Step::field(&n)),
        "[a-c\"<é]{0,2}".prop_map(|v| Step::value(&Value::from(v))),
        any::<i8>().prop_map(|n| Step::value(&Value::from(n))),
        ("[a-b]", any::<bool>()).prop_map(|(k, v)| Step::key(Map::from_iter([(k, Value::from(v))]))),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..4), 0..8)
}

fn set(paths: &[Vec<Step>]) -> FieldSet {
    let mut set = FieldSet::default();
    paths.iter().for_each(|p| set.insert(p));
    set
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(first in spec(), second in spec()) {
        let live = apply(None, &first, "one", false).unwrap();
        let live = apply(Some(&live), &second, "two", true).unwrap();
        prop_assert_eq!(&apply(Some(&live), &second, "two", false).unwrap(), &live);
    }

    #[test]
    fn applied_values_win(first in spec(), second in spec()) {
        let live = apply(None, &first, "one", false).unwrap();
        let merged = apply(Some(&live), &second, "two", true).unwrap();
        prop_assert!(contains(&merged["spec"], &second), "{} in {}", second, merged["spec"]);
    }

    // A value that became empty is null until it is defaulted, and an empty list that merges by item has no owner: both are left
    // out of the comparison.
    #[test]
    fn one_manager_alone_gets_exactly_what_it_applies(first in spec(), second in spec()) {
        let live = apply(None, &first, "one", false).unwrap();
        let merged = apply(Some(&live), &second, "one", false).unwrap();
        let (found, wanted) = (without_empty(&merged["spec"]), without_empty(&second));
        prop_assert_eq!(sorted(&found), sorted(&wanted), "{} then {} gave {}", first, second, merged["spec"]);
    }

    #[test]
    fn without_force_no_field_of_others_changes(first in spec(), second in spec()) {
        let live = apply(None, &first, "one", false).unwrap();
        if let Ok(merged) = apply(Some(&live), &second, "two", false) {
            prop_assert!(contains(&merged["spec"], &first), "{} in {}", first, merged["spec"]);
        }
    }

    #[test]
    fn an_update_is_owned_by_its_writer(first in spec(), second in spec()) {
        let mut live = object(&first);
        track_update(&model(), None, &mut live, &writer("one"));
        let mut new = object(&second);
        track_update(&model(), Some(&live), &mut new, &writer("two"));
        prop_assert_eq!(&new["spec"], &second);
        let mut again = new.clone();
        track_update(&model(), Some(&new), &mut again, &writer("three"));
        prop_assert_eq!(again, new);
    }

    #[test]
    fn fields_v1_is_the_same_when_read_back(paths in paths()) {
        let set = set(&paths);
        let written = set.to_fields_v1();
        prop_assert_eq!(FieldSet::from_fields_v1(&written), Some(set));
    }

    #[test]
    fn sets_keep_the_laws_of_sets(a in paths(), b in paths()) {
        let (a, b) = (set(&a), set(&b));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert!(a.difference(&a).is_empty());
        prop_assert!(a.paths().iter().all(|p| a.contains(p)));
    }

    #[test]
    fn no_managed_fields_panic(text in "[{}\":.fkvi,a\\[\\]]{0,30}", fields in prop::collection::btree_map("(f:|k:|v:|i:|)[a{}\":1]{0,4}", Just(json!({})), 0..4)) {
        let parsed: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        for value in [parsed, json!(fields)] {
            let _ = FieldSet::from_fields_v1(&value);
            let mut object = object(&json!({}));
            object["metadata"]["managedFields"] = json!([{"operation":"Update","fieldsType":"FieldsV1","fieldsV1":value}]);
            track_update(&model(), None, &mut object, &writer("one"));
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        other => other.is_null(),
    }
}

fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(k, v)| (k.clone(), without_empty(v)));
            Value::Object(entries.filter(|(_, v)| !is_empty(v)).collect())
        }
        Value::Null => json!({}),
        other => other.clone(),
    }
}

/// Removal keeps the order of what stays, which need not be the applied one.
fn sorted(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().map(sorted).collect();
            items.sort();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let mut entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", sorted(v))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
        other => other.to_string(),
    }
}
