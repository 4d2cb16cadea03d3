//! Properties that hold for any object.

use super::*;
use proptest::prelude::*;
use serde_json::{Map, json};

fn model() -> Model {
    let leaf = json!({"type":"string","maxLength":3,"default":"d"});
    Model::compile(&json!({"type":"object","properties":{
        "a": leaf, "b": {"type":"integer","minimum":1,"nullable":true},
        "c": {"type":"object","default":{},"properties":{"a": leaf, "b":{"type":"array","items":leaf}}},
        "d": {"type":"object","additionalProperties":{"type":"object","properties":{"a":leaf,"b":{"type":"boolean"}}}},
        "e": {"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
        "f": {"x-kubernetes-preserve-unknown-fields":true,"type":"object","properties":{"a":leaf}},
        "g": {"x-kubernetes-int-or-string":true},
        "h": {"type":"object","x-kubernetes-embedded-resource":true,"properties":{"a":leaf}},
        "i": {"type":"object","oneOf":[{"required":["a"]},{"required":["b"]}],"properties":{"a":leaf,"b":leaf},
              "x-kubernetes-validations":[{"rule":"!has(self.a) || self.a != 'x'"}]}
    }}))
    .unwrap()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        // Beyond this precision the JSON library rounds.
        (any::<i16>(), 0..5).prop_map(|(n, e)| Value::from(f64::from(n) / 2f64.powi(e))),
        "[a-cxé]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[a-i]|metadata|kind", inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::vec(("[a-i]|metadata|zz", value()), 0..8)
        .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>()))
}

proptest! {
    #[test]
    fn pruning_and_defaulting_twice_is_once(object in object()) {
        let model = model();
        let mut once = object.clone();
        model.prune(&mut once);
        let mut twice = once.clone();
        prop_assert!(model.prune(&mut twice).is_empty());
        prop_assert_eq!(&twice, &once);
        model.default(&mut once);
        let mut again = once.clone();
        model.default(&mut again);
        prop_assert_eq!(&again, &once);
        prop_assert!(model.prune(&mut again).is_empty(), "defaults are known to the schema");
    }

    #[test]
    fn an_unchanged_object_is_always_accepted(object in object()) {
        let errors = model().validate(&object, Some(&object));
        // Embedded resources are checked on every write, as in Kubernetes.
        prop_assert!(errors.iter().all(|e| e.path.starts_with('h') || e.path == "<nil>"), "{:?}", errors);
    }

    #[test]
    fn decoding_keeps_the_value(value in value()) {
        let (decoded, duplicates) = decode::decode_strict(value.to_string().as_bytes()).unwrap();
        prop_assert!(duplicates.is_empty());
        let mut normal = value;
        decode::normalise_numbers(&mut normal);
        prop_assert_eq!(decoded, normal);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[{}\\[\\]\":,0-9eE.+a\\\\ -]{0,30}") {
        let _ = decode::decode_strict(&bytes);
        let _ = decode::decode_strict(text.as_bytes());
    }

    #[test]
    fn quoting_is_go_quoting(text in ".{0,8}") {
        let quoted = crate::object::go_text::go_quote(&text);
        prop_assert!(quoted.starts_with('"') && quoted.ends_with('"') && !quoted.contains('\n'));
    }
}
