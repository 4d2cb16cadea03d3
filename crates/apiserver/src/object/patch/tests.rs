use super::*;
use proptest::prelude::*;
use serde_json::json;

fn patched(object: Value, patch: Value) -> Result<Value, PatchError> {
    apply_json_patch(&object, patch.to_string().as_bytes())
}

#[test]
fn json_patch_follows_the_rfc_and_kubernetes() {
    for (object, patch, want) in [
        (json!({"a":1}), json!([{"op":"add","path":"/b","value":2}]), Some(json!({"a":1,"b":2}))),
        (json!({"a":[1,3]}), json!([{"op":"add","path":"/a/1","value":2}]), Some(json!({"a":[1,2,3]}))),
        (json!({"a":[1]}), json!([{"op":"add","path":"/a/-","value":2}]), Some(json!({"a":[1,2]}))),
        (json!({"a":[1]}), json!([{"op":"add","path":"/a/-1","value":2}]), Some(json!({"a":[1,2]}))),
        (json!({"a":[1]}), json!([{"op":"add","path":"/a/3","value":2}]), None),
        (json!({"a":1}), json!([{"op":"remove","path":"/a"}]), Some(json!({}))),
        (json!({"a":1}), json!([{"op":"remove","path":"/b"}]), None),
        (json!({"a":[1,2]}), json!([{"op":"remove","path":"/a/-1"}]), Some(json!({"a":[1]}))),
        (json!({"a":1}), json!([{"op":"replace","path":"/a","value":null}]), Some(json!({"a":null}))),
        (json!({"a":1}), json!([{"op":"replace","path":"/b","value":1}]), None),
        (json!({"a":{"b":1}}), json!([{"op":"move","from":"/a/b","path":"/c"}]), Some(json!({"a":{},"c":1}))),
        (json!({"a":{"b":1}}), json!([{"op":"copy","from":"/a","path":"/c"}]), Some(json!({"a":{"b":1},"c":{"b":1}}))),
        (json!({"a":1}), json!([{"op":"test","path":"/a","value":1}]), Some(json!({"a":1}))),
        (json!({"a":1}), json!([{"op":"test","path":"/a","value":2},{"op":"remove","path":"/a"}]), None),
        (json!({"a":1}), json!([{"op":"test","path":"/b","value":null}]), Some(json!({"a":1}))),
        (
            json!({"a/b":{"c~d":1}}),
            json!([{"op":"replace","path":"/a~1b/c~0d","value":2}]),
            Some(json!({"a/b":{"c~d":2}})),
        ),
        (json!({}), json!([{"op":"add","path":"/a/b","value":2}]), None),
    ] {
        match (patched(object.clone(), patch.clone()), want) {
            (Ok(got), Some(want)) => assert_eq!(got, want, "{patch}"),
            (Err(PatchError::Unprocessable(_)), None) => {}
            (got, want) => panic!("{patch} on {object}: {got:?}, expected {want:?}"),
        }
    }
}

#[test]
fn errors_have_the_messages_of_kubernetes() {
    let many: Vec<Value> = (0..=MAX_OPERATIONS).map(|_| json!({"op":"test","path":"/a","value":1})).collect();
    let error = patched(json!({"a":1}), Value::Array(many)).unwrap_err();
    assert_eq!(
        error,
        PatchError::TooLarge("The allowed maximum operations in a JSON patch is 10000, got 10001".into())
    );
    assert_eq!(patched(json!({}), json!([{"op":"remove","path":"/a"}])).unwrap_err().to_string(), UNPROCESSABLE);
    for (operation, want) in [
        (json!({"op":"jump","path":"/a"}), r#"invalid operation {"op":"jump","path":"/a"}: unsupported operation"#),
        (
            json!({"op":"add","path":"/a"}),
            r#"invalid operation {"op":"add","path":"/a"}: failed to decode 'value': operation, missing value field: missing value"#,
        ),
    ] {
        assert_eq!(patched(json!({}), json!([operation])).unwrap_err(), PatchError::BadRequest(want.into()));
    }
    assert!(matches!(apply_json_patch(&json!({}), b"{}"), Err(PatchError::BadRequest(_))));
    assert!(matches!(apply_json_patch(&json!({}), b"nonsense"), Err(PatchError::BadRequest(_))));
    assert!(matches!(apply_merge_patch(&json!({}), b"[]"), Err(PatchError::BadRequest(_))));
    assert_eq!(
        json_patch_problems(br#"[{"op":"test","op":"test","x":1}]"#),
        ["json patch duplicate field \"[0].op\"", "json patch unknown field \"[0].x\""]
    );
    assert_eq!(merge_patch_problems(br#"{"a":{"b":1,"b":2}}"#), ["duplicate field \"a.b\""]);
}

#[test]
fn a_small_patch_makes_no_large_object() {
    let text = "x".repeat(1000);
    let copies = |count: usize| (0..count).map(|i| json!({"op":"copy","from":"/a","path":format!("/a/{i}")})).collect();
    assert!(patched(json!({"a":{"x":text}}), copies(11)).is_ok());
    let Err(PatchError::Unprocessable(why)) = patched(json!({"a":{"x":text}}), copies(14)) else {
        panic!("16 MB of copies were made");
    };
    assert!(why.contains("exceeding the limit 3145728"), "{why}");

    let at = |depth: usize| json!([{"op":"add","path":"/a".repeat(depth),"value":{}}]);
    let nested = |depth: usize| (0..depth).fold(json!({}), |inner, _| json!({"a": inner}));
    assert!(patched(nested(98), at(99)).is_ok());
    assert!(matches!(patched(nested(99), at(100)), Err(PatchError::Unprocessable(_))), "it could not be read again");
    // Doubled in depth by each operation, it would overflow the stack before the last.
    let deepen = (0..19).map(|n| json!({"op":"copy","from":"/a","path":"/a".repeat((1 << n) + 1)})).collect();
    assert!(matches!(patched(json!({"a":{}}), deepen), Err(PatchError::Unprocessable(_))));
    // Many moves into the depth are no depth.
    let mut moves: Vec<Value> = Vec::new();
    for _ in 0..500 {
        moves.push(json!({"op":"move","from":"/x","path":"/d/e/x"}));
        moves.push(json!({"op":"move","from":"/d/e/x","path":"/x"}));
    }
    let object = json!({"x":1,"d":{"e":{}}});
    assert_eq!(patched(object.clone(), Value::Array(moves)), Ok(object));
}

#[test]
fn merge_patch_follows_the_rfc_and_kubernetes() {
    for (object, patch, want) in [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!({"a":"foo"}), json!({"a":{"b":null,"c":1}}), json!({"a":{"c":1}})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        (json!({}), json!({"a":[null,{"b":null,"c":1}]}), json!({"a":[null,{"c":1}]})),
    ] {
        assert_eq!(apply_merge_patch(&object, patch.to_string().as_bytes()).unwrap(), want, "{patch}");
    }
}

#[test]
fn a_no_op_is_distinguished_from_a_change() {
    let old = json!({"metadata":{"resourceVersion":"1","managedFields":[{"manager":"a","time":"x"}]},"spec":{"a":1}});
    let new = json!({"metadata":{"resourceVersion":"2","managedFields":[{"manager":"a","time":"y"}]},"spec":{"a":1}});
    assert!(is_no_op(&old, &new));
    assert!(!is_no_op(&old, &json!({"metadata":{},"spec":{"a":1}})));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[a-c]", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn nulls_in_lists(value: &Value, in_list: bool) -> bool {
    match value {
        Value::Null => in_list,
        Value::Array(items) => items.iter().any(|v| nulls_in_lists(v, true)),
        Value::Object(map) => map.values().any(|v| nulls_in_lists(v, in_list)),
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_merge_patch_applied_twice_changes_nothing_more(object in json_value(), patch in json_value()) {
        // Nulls inside lists stay where a list takes an object's place, and go where it takes a list's.
        prop_assume!(patch.is_object() && !nulls_in_lists(&patch, false));
        let body = patch.to_string();
        let once = apply_merge_patch(&object, body.as_bytes()).unwrap();
        prop_assert_eq!(&apply_merge_patch(&once, body.as_bytes()).unwrap(), &once);
    }

    #[test]
    fn no_patch_panics(object in json_value(), op in "add|remove|replace|move|copy|test", path in "(/(-?[0-9a-c~]{0,2}|-))*", from in "(/(-?[0-9a-c]|-))*", value in json_value()) {
        let _ = patched(object, json!([{"op":op,"path":path,"from":from,"value":value}]));
    }
}
