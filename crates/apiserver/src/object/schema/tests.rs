//! The schema against Kubernetes' behaviour, as tables.

use super::*;
use serde_json::json;

fn model(schema: Value) -> Model {
    Model::compile(&schema).expect("schema compiles")
}

/// A model whose `spec` has these properties.
fn spec(properties: Value) -> Model {
    model(json!({"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}))
}

fn lines(errors: Vec<FieldError>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn values_are_checked_with_the_messages_of_kubernetes() {
    let cases: Vec<(Value, Value, &[&str])> = vec![
        (
            json!({"type":"integer"}),
            json!("a"),
            &[r#"spec.x: Invalid value: "string": spec.x in body must be of type integer: "string""#],
        ),
        (
            json!({"type":"integer"}),
            json!(1.5),
            &[
                r#"spec.x: Invalid value: "number": spec.x in body must be of type integer: "number""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in spec.x"#,
            ],
        ),
        (json!({"type":"integer"}), json!(1.0), &[]),
        (json!({"type":"number"}), json!(1), &[]),
        (
            json!({"type":"string"}),
            json!(null),
            &[r#"spec.x: Invalid value: "null": spec.x in body must be of type string: "null""#],
        ),
        (json!({"type":"string","nullable":true}), json!(null), &[]),
        (json!({"x-kubernetes-int-or-string":true}), json!("5"), &[]),
        (json!({"x-kubernetes-int-or-string":true}), json!(5), &[]),
        (
            json!({"x-kubernetes-int-or-string":true}),
            json!(true),
            &[r#"spec.x: Invalid value: "boolean": spec.x in body must be of type integer,string: "boolean""#],
        ),
        (
            json!({"type":"integer","minimum":1}),
            json!(0),
            &["spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1"],
        ),
        (
            json!({"type":"integer","minimum":1,"exclusiveMinimum":true}),
            json!(1),
            &["spec.x: Invalid value: 1: spec.x in body should be greater than 1"],
        ),
        (
            json!({"type":"number","maximum":1.5}),
            json!(2.25),
            &["spec.x: Invalid value: 2.25: spec.x in body should be less than or equal to 1.5"],
        ),
        (
            json!({"type":"integer","multipleOf":3}),
            json!(7),
            &["spec.x: Invalid value: 7: spec.x in body should be a multiple of 3"],
        ),
        (json!({"type":"string","maxLength":2}), json!("äöü"), &["spec.x: Too long: may not be more than 2 bytes"]),
        (json!({"type":"string","maxLength":3}), json!("äöü"), &[]),
        (
            json!({"type":"string","minLength":2}),
            json!("a"),
            &[r#"spec.x: Invalid value: "a": spec.x in body should be at least 2 chars long"#],
        ),
        (
            json!({"type":"string","pattern":"^a+$"}),
            json!("b"),
            &[r#"spec.x: Invalid value: "b": spec.x in body should match '^a+$'"#],
        ),
        (
            json!({"type":"string","enum":["a","b"]}),
            json!("c"),
            &[r#"spec.x: Unsupported value: "c": supported values: "a", "b""#],
        ),
        (
            json!({"type":"integer","enum":[1,2]}),
            json!(3),
            &[r#"spec.x: Unsupported value: 3: supported values: "1", "2""#],
        ),
        (
            json!({"type":"number","maximum":1.5}),
            json!(2),
            &["spec.x: Invalid value: 2: spec.x in body should be less than or equal to 1"],
        ),
        (
            json!({"type":"integer","format":"int32"}),
            json!(3000000000u64),
            &[r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in spec.x"#],
        ),
        (
            json!({"type":"object","x-kubernetes-embedded-resource":true,"x-kubernetes-preserve-unknown-fields":true}),
            json!({"kind":"x"}),
            &["spec.x.apiVersion: Required value"],
        ),
        (
            json!({"type":"array","items":{"type":"integer"},"minItems":1}),
            json!([]),
            &["spec.x: Invalid value: 0: spec.x in body should have at least 1 items"],
        ),
        (
            json!({"type":"array","items":{"type":"integer"},"maxItems":1}),
            json!([1, 2]),
            &["spec.x: Too many: 2: must have at most 1 item"],
        ),
        (
            json!({"type":"array","items":{"type":"integer"}}),
            json!([1, "a"]),
            &[r#"spec.x[1]: Invalid value: "string": spec.x[1] in body must be of type integer: "string""#],
        ),
        (
            json!({"type":"object","properties":{"a":{"type":"string"}},"required":["a","b"]}),
            json!({}),
            &["spec.x.a: Required value", "spec.x.b: Required value"],
        ),
        (
            json!({"type":"object","additionalProperties":{"type":"integer"},"maxProperties":1}),
            json!({"a":1,"b":2}),
            &["spec.x: Too many: 2: must have at most 1 item"],
        ),
        (
            json!({"type":"object","additionalProperties":{"type":"integer"}}),
            json!({"a":"b"}),
            &[r#"spec.x.a: Invalid value: "string": spec.x.a in body must be of type integer: "string""#],
        ),
        (
            json!({"type":"string","format":"date-time"}),
            json!("yesterday"),
            &[r#"spec.x: Invalid value: "yesterday": spec.x in body must be of type date-time: "yesterday""#],
        ),
        (json!({"type":"string","format":"quantum"}), json!("yesterday"), &[]),
        (
            json!({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"oneOf":[{"required":["a"]},{"required":["b"]}]}),
            json!({"a":"","b":""}),
            &[
                r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
        (
            json!({"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}},"oneOf":[{"required":["a"]},{"required":["b"]}]}),
            json!({}),
            &[
                r#"<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.x.a: Required value",
            ],
        ),
        (
            json!({"type":"integer","anyOf":[{"minimum":5},{"maximum":1}]}),
            json!(3),
            &[
                r#"<nil>: Invalid value: "": "spec.x" must validate at least one schema (anyOf)"#,
                "spec.x: Invalid value: 3: spec.x in body should be greater than or equal to 5",
            ],
        ),
        (
            json!({"type":"integer","not":{"enum":[3]}}),
            json!(3),
            &[r#"<nil>: Invalid value: "": "spec.x" must not validate the schema (not)"#],
        ),
        (
            json!({"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}}),
            json!(["a", "b", "a", "a"]),
            &[r#"spec.x[2]: Duplicate value: "a""#],
        ),
        (
            json!({"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["n"],"items":{"type":"object","properties":{"n":{"type":"string"}}}}),
            json!([{"n":"a"},{"n":"a"}]),
            &[r#"spec.x[1]: Duplicate value: {"n":"a"}"#],
        ),
    ];
    for (schema, value, want) in cases {
        let got = lines(spec(json!({"x": schema})).validate(&json!({"spec": {"x": value}}), None));
        assert_eq!(got, want, "{schema} on {value}");
    }
}

#[test]
fn unchanged_values_are_not_refused_again() {
    let model = spec(json!({"a": {"type": "integer", "minimum": 5}, "b": {"type": "string"}}));
    let old = json!({"spec": {"a": 1, "b": "x"}});
    assert!(model.validate(&json!({"spec": {"a": 1, "b": "y"}}), Some(&old)).is_empty());
    assert_eq!(model.validate(&json!({"spec": {"a": 2, "b": "y"}}), Some(&old)).len(), 1);
}

#[test]
fn pruning_follows_kubernetes() {
    let schema = json!({"type":"object","properties":{"spec":{"type":"object","properties":{
        "a": {"type":"string"},
        "free": {"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"strict":{"type":"object","properties":{"k":{"type":"string"}}}}},
        "map": {"type":"object","additionalProperties":{"type":"object","properties":{"k":{"type":"string"}}}},
        "list": {"type":"array","items":{"type":"object","properties":{"k":{"type":"string"}}}},
        "tpl": {"type":"object","x-kubernetes-embedded-resource":true,"properties":{"spec":{"type":"object"}}},
        "iors": {"x-kubernetes-int-or-string":true}
    }}}});
    let model = model(schema);
    let mut object = json!({"apiVersion":"g/v1","kind":"K","metadata":{"name":"n","labels":{"a":"b"}},"zz":1,"spec":{
        "a":"x","b":"y","free":{"any":{"thing":1},"strict":{"k":"1","z":2}},"map":{"m":{"k":"1","z":2}},
        "list":[{"k":"1"},{"z":1}],"tpl":{"apiVersion":"v1","kind":"X","metadata":{"name":"t"},"spec":{"q":1},"other":1},"iors":5}});
    let paths: Vec<_> = model.prune(&mut object).into_iter().map(|u| u.path).collect();
    assert_eq!(
        paths,
        ["spec.b", "spec.free.strict.z", "spec.list[1].z", "spec.map.m.z", "spec.tpl.other", "spec.tpl.spec.q", "zz"]
    );
    assert_eq!(
        object,
        json!({"apiVersion":"g/v1","kind":"K","metadata":{"name":"n","labels":{"a":"b"}},"spec":{
        "a":"x","free":{"any":{"thing":1},"strict":{"k":"1"}},"map":{"m":{"k":"1"}},
        "list":[{"k":"1"},{}],"tpl":{"apiVersion":"v1","kind":"X","metadata":{"name":"t"},"spec":{}},"iors":5}})
    );
    assert!(model.prune(&mut object).is_empty());
}

#[test]
fn defaults_follow_kubernetes() {
    let model = spec(json!({
        "a": {"type":"string","default":"A"},
        "n": {"type":"string","nullable":true,"default":"N"},
        "gone": {"type":"string"},
        "o": {"type":"object","default":{},"properties":{"deep":{"type":"integer","default":7}}},
        "absent": {"type":"object","properties":{"deep":{"type":"integer","default":7}}},
        "l": {"type":"array","items":{"type":"object","properties":{"p":{"type":"string","default":"TCP"}}}},
        "m": {"type":"object","additionalProperties":{"type":"string","default":"D"}}
    }));
    let mut object = json!({"spec":{"a":null,"n":null,"gone":null,"l":[{}, {"p":"UDP"}],"m":{"x":null,"y":"1"}}});
    model.default(&mut object);
    assert_eq!(
        object,
        json!({"spec":{"a":"A","n":null,"o":{"deep":7},"l":[{"p":"TCP"},{"p":"UDP"}],"m":{"x":"D","y":"1"}}})
    );
}

fn with_rules(rules: Value) -> Model {
    model(json!({"type":"object","properties":{"spec":{"type":"object","x-kubernetes-validations":rules,"properties":{
        "min":{"type":"integer"},"max":{"type":"integer"},"ratio":{"type":"number"},"when":{"type":"string","format":"date-time"},
        "name":{"type":"string"},"namespace":{"type":"string"},"a-b":{"type":"string"},
        "m":{"type":"object","additionalProperties":{"type":"string"}},
        "l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],"items":{"type":"object","properties":{"k":{"type":"string"},
            "v":{"type":"string","x-kubernetes-validations":[{"rule":"self == oldSelf","message":"v is immutable"}]}}}}
    }}}}))
}

#[test]
fn rules_run_with_kubernetes_wording() {
    let cases: Vec<(Value, Value, Option<Value>, &[&str])> = vec![
        (
            json!([{"rule":"self.min <= self.max"}]),
            json!({"min":2,"max":1}),
            None,
            &[r#"spec: Invalid value: failed rule: self.min <= self.max"#],
        ),
        (
            json!([{"rule":"self.min <= self.max","message":"min must not exceed max"}]),
            json!({"min":2,"max":1}),
            None,
            &[r#"spec: Invalid value: min must not exceed max"#],
        ),
        (
            json!([{"rule":"self.min <= self.max"}]),
            json!({"min":1}),
            None,
            &[r#"spec: Invalid value: "object": no such key: max evaluating rule: self.min <= self.max"#],
        ),
        (
            json!([{"rule":"!has(self.max) || self.min <= self.max","fieldPath":".max","reason":"FieldValueForbidden","message":"no"}]),
            json!({"min":2,"max":1}),
            None,
            &["spec.max: Forbidden: no"],
        ),
        (
            json!([{"rule":"false","messageExpression":"'min is ' + string(self.min)"}]),
            json!({"min":2}),
            None,
            &[r#"spec: Invalid value: min is 2"#],
        ),
        (json!([{"rule":"self.ratio == 1.0"}]), json!({"ratio":1}), None, &[]),
        (
            json!([{"rule":"self.when > timestamp('2020-01-01T00:00:00Z')"}]),
            json!({"when":"2019-01-01T00:00:00Z"}),
            None,
            &[r#"spec: Invalid value: failed rule: self.when > timestamp('2020-01-01T00:00:00Z')"#],
        ),
        (
            json!([{"rule":"self.__namespace__ == 'a' && self.a__dash__b == 'b'"}]),
            json!({"namespace":"a","a-b":"b"}),
            None,
            &[],
        ),
        (json!([{"rule":"self.m['x-y'] == '1'"}]), json!({"m":{"x-y":"1"}}), None, &[]),
        (json!([{"rule":"self.name.size() == 2 && size(self.name) == 2"}]), json!({"name":"éé"}), None, &[]),
        (
            json!([{"rule":"self.?name.orValue('z') == 'z' && self.?max.orValue(1) == 1 && !self.?min.hasValue()"}]),
            json!({}),
            None,
            &[],
        ),
        (json!([{"rule":"type(self.min) == int && dyn(self.min) == 1 && int('1') == 1"}]), json!({"min":1}), None, &[]),
        (json!([{"rule":"self.name == oldSelf.name","message":"name is immutable"}]), json!({"name":"a"}), None, &[]),
        (
            json!([{"rule":"self.name == oldSelf.name","message":"name is immutable"}]),
            json!({"name":"b"}),
            Some(json!({"name":"a"})),
            &[r#"spec: Invalid value: name is immutable"#],
        ),
        (
            json!([{"rule":"oldSelf.hasValue() || self.name == 'first'","optionalOldSelf":true}]),
            json!({"name":"b"}),
            None,
            &[r#"spec: Invalid value: failed rule: oldSelf.hasValue() || self.name == 'first'"#],
        ),
        (
            json!([{"rule":"oldSelf.hasValue() || self.name == 'first'","optionalOldSelf":true}]),
            json!({"name":"b"}),
            Some(json!({})),
            &[],
        ),
        (
            json!([]),
            json!({"l":[{"k":"1","v":"a"},{"k":"0","v":"n"}]}),
            Some(json!({"l":[{"k":"0","v":"n"},{"k":"1","v":"b"}]})),
            &[r#"spec.l[0].v: Invalid value: "a": v is immutable"#],
        ),
        (json!([{"rule":"false","message":"never"}]), json!({"name":"a"}), Some(json!({"name":"a"})), &[]),
        (
            json!([{"rule":"false","message":"never"}]),
            json!({"name":5}),
            None,
            &[
                r#"spec.name: Invalid value: "integer": spec.name in body must be of type string: "integer""#,
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ],
        ),
    ];
    for (rules, value, old, want) in cases {
        let old = old.map(|o| json!({"spec": o}));
        let got = lines(with_rules(rules.clone()).validate(&json!({"spec": value}), old.as_ref()));
        assert_eq!(got, want, "{rules} on {value} from {old:?}");
    }
}

#[test]
fn a_model_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Model>();
}

#[test]
fn bad_schemas_are_refused_with_the_place() {
    for (schema, want) in [
        (
            json!({"type":"object","properties":{"a":{"type":"text"}}}),
            r#"schema at .properties[a]: type "text" is not known"#,
        ),
        (
            json!({"type":"object","properties":{"a":{"$ref":"x"}}}),
            "schema at .properties[a]: $ref is not allowed in a structural schema",
        ),
        (
            json!({"type":"object","properties":{"a":{"type":"string","pattern":"("}}}),
            r#"schema at .properties[a]: pattern "(" cannot be compiled"#,
        ),
        (
            json!({"type":"object","properties":{"a":{"type":"array","x-kubernetes-list-type":"map"}}}),
            "schema at .properties[a]: x-kubernetes-list-map-keys must name the keys of a list of type map",
        ),
    ] {
        assert_eq!(Model::compile(&schema).unwrap_err().to_string(), want);
    }
    let rule = json!({"type":"object","x-kubernetes-validations":[{"rule":"self.a =="}]});
    assert!(matches!(Model::compile(&rule), Err(SchemaError::Rule { .. })));
    let rule = json!({"type":"object","x-kubernetes-validations":[{"rule":"cel.bind(x, self.a, x == x)"}]});
    assert_eq!(
        Model::compile(&rule).unwrap_err().to_string(),
        r#"schema at the root: rule "cel.bind(x, self.a, x == x)" cannot be compiled: bind in this form is not supported"#
    );
    let rule = json!({"type":"object","x-kubernetes-validations":[{"rule":"self.l.all(i + 1, v, v > i)"}]});
    assert_eq!(
        Model::compile(&rule).unwrap_err().to_string(),
        r#"schema at the root: rule "self.l.all(i + 1, v, v > i)" cannot be compiled: argument 1 of all must be a simple name"#
    );
    let nullable = json!({"type":"object","properties":{"a":{"type":"string","nullable":true}},"x-kubernetes-validations":[{"rule":"!has(self.a)"}]});
    assert!(model(nullable).validate(&json!({"a":null}), None).is_empty());
}

#[test]
fn status_is_kubernetes_own() {
    let errors = [FieldError::required("spec.a", ""), FieldError::invalid("spec.b", json!(1), "no")];
    let status = status::invalid_status("compute.evroclabs.net", "VirtualMachine", "x", &errors);
    assert_eq!(
        status["message"],
        r#"VirtualMachine.compute.evroclabs.net "x" is invalid: [spec.a: Required value, spec.b: Invalid value: 1: no]"#
    );
    assert_eq!(
        status["details"]["causes"][1],
        json!({"reason":"FieldValueInvalid","message":"Invalid value: 1: no","field":"spec.b"})
    );
}

#[test]
fn the_cost_of_rules_is_bounded() {
    let model = |rule: &str| {
        Model::compile(&json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "properties": {"l": {"type": "array", "items": {"type": "integer"}}, "n": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": rule}],
        }}}))
    };
    let object = |count: i64| json!({"spec": {"l": (0..count).collect::<Vec<_>>(), "n": i64::MIN}});
    let loops = "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, a + b + c + d >= 0))))";
    let errors = |rule: &str, count| model(rule).unwrap().validate(&object(count), None);
    assert_eq!(errors(loops, 5), []);
    let refused = errors(loops, 40);
    let want = format!("': no further validation rules will be run due to call cost exceeds limit for rule: {loops}");
    assert!(refused.len() == 1 && refused[0].to_string().ends_with(&want), "{refused:?}");
    // A result that no longer depends on it is kept.
    assert_eq!(errors(&format!("{loops} || self.n < 0"), 40), []);
    let overflow = errors("-self.n > 0", 1)[0].to_string();
    assert_eq!(overflow, "spec: Invalid value: \"object\": integer overflow evaluating rule: -self.n > 0");
    for (rule, want) in [
        ("Foo{a: 1} == self", "messages such as Foo{…} are not supported"),
        (&*vec!["1"; 100].join("+"), "it is nested deeper than 40"),
        (&*" ".repeat(20_000), "cannot be compiled"),
        (&*format!("{}true{}", "(".repeat(5_000), ")".repeat(5_000)), "cannot be compiled"),
    ] {
        let error = model(rule).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn rules_may_use_two_variables_and_sort() {
    let spec = json!({"m": {"a": "1", "b": "2"}, "l": [{"k": "y", "v": "2"}, {"k": "x", "v": "1"}], "min": 2});
    for (rule, holds) in [
        ("self.m.all(k, v, k != v)", true),
        ("self.m.all(k, v, v == '1')", false),
        ("self.m.exists(k, v, k == 'b' && v == '2')", true),
        ("self.m.exists(k, v, k == 'b' && v == '1')", false),
        ("self.m.existsOne(k, v, v != '')", false),
        ("self.l.exists_one(i, it, it.k == 'x' && i == 1)", true),
        ("self.l.transformList(i, it, it.k + string(i)) == ['y0', 'x1']", true),
        ("self.l.transformList(i, it, i > 0, it.k) == ['x']", true),
        ("self.m.transformMap(k, v, v + k) == {'a': '1a', 'b': '2b'}", true),
        ("self.m.transformMap(k, v, v == '2', k) == {'b': 'b'}", true),
        ("self.m.transformMapEntry(k, v, {v: k}) == {'1': 'a', '2': 'b'}", true),
        ("self.l.transformMapEntry(i, it, i == 0, {it.k: i}) == {'y': 0}", true),
        ("self.l.sortBy(it, it.k).map(it, it.v) == ['1', '2']", true),
        ("self.l.sortBy(it, -int(it.v)).map(it, it.v) == ['2', '1']", true),
        // A variable is hidden by a nearer one of its name, and only there.
        ("self.m.all(k, v, self.m.exists(v, k, k == '2') && v.matches('^[12]$'))", true),
        ("self.m.all(k, v, [v].all(v, v == self.m[k]) && self.l.exists(i, it, it.v == v))", true),
        ("self.l.all(i, it, self.l.all(j, other, i == j || it.k != other.k))", true),
        ("self.l.map(it, it.k).sort() == ['x', 'y'] && self.l.first().value().k == 'y'", true),
    ] {
        let errors = lines(with_rules(json!([{"rule": rule}])).validate(&json!({"spec": spec}), None));
        assert_eq!(errors.is_empty(), holds, "{rule}: {errors:?}");
    }
    let twice = with_rules(json!([{"rule": "self.l.transformMapEntry(i, it, {'a': i}).size() > 0"}]));
    let found = lines(twice.validate(&json!({"spec": spec}), None));
    assert!(found[0].contains("key 'a' already exists"), "{found:?}");
}
