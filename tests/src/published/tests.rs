use serde_json::{Value, json};

use super::{compare::incompatible, *};

fn api(field: Value) -> Value {
    whole(&json!({"type": "object", "required": ["name"], "properties": {"spec": field, "name": {"type": "string"}}}))
}

fn whole(schema: &Value) -> Value {
    let operation = |action: &str| {
        json!({"x-kubernetes-action": action, "responses": {}, "description": "words",
        "parameters": [{"in": "query", "name": "limit"}], "requestBody": {"content": {"application/json": {}}}})
    };
    let document = json!({
        "paths": {"/apis/g/v1/disks": {"parameters": [{"in": "query", "name": "pretty"}], "get": operation("list")}},
        "components": {"schemas": {"g.v1.Disk": schema, "io.k8s.apimachinery.Meta": {"type": "object"}}},
    });
    surface(&BTreeMap::from([("apis/g/v1".to_owned(), document)]))
}

/// Asserts that the second is incompatible with the first, with this message, and not the other way round.
#[test]
fn a_narrower_api_is_incompatible_and_a_wider_one_is_not() {
    let table = [
        (json!({"type": "string"}), json!({"type": "string", "enum": ["a"]}), "only [\"a\"] are allowed now"),
        (json!({"enum": ["a", "b"]}), json!({"enum": ["b"]}), "the value \"a\" is gone"),
        (json!({"minimum": 1}), json!({"minimum": 2}), "minimum changed from 1 to 2"),
        (json!({}), json!({"maxLength": 5}), "maxLength changed from none to 5"),
        (json!({"maxItems": 5}), json!({"maxItems": 4}), "maxItems changed from 5 to 4"),
        (
            json!({"minimum": 1}),
            json!({"minimum": 1, "exclusiveMinimum": true}),
            "exclusiveMinimum changed from none to true",
        ),
        (json!({}), json!({"pattern": "^a$"}), "pattern changed from none to \"^a$\""),
        (json!({}), json!({"oneOf": [{"required": ["a"]}]}), "oneOf changed from none to [{\"required\":[\"a\"]}]"),
        (json!({"nullable": true}), json!({}), "null is no longer allowed"),
        (json!({"default": 1}), json!({}), "default changed from 1 to none"),
        (
            json!({"x-kubernetes-validations": [{"rule": "a", "message": "m"}]}),
            json!({"x-kubernetes-validations": [{"rule": "a"}, {"rule": "self == oldSelf"}]}),
            "there is a new rule, `self == oldSelf`",
        ),
        (
            json!({"x-kubernetes-selectable-fields": [{"fieldPath": ".spec.a"}]}),
            json!({}),
            ".spec.a can no longer be selected by",
        ),
    ];
    for (wide, narrow, sentence) in table {
        let (wide, narrow) = (api(wide), api(narrow));
        assert_eq!(incompatible(&wide, &narrow), [format!("g/v1 Disk spec: {sentence}")]);
        assert_eq!(incompatible(&narrow, &wide), Vec::<String>::new(), "the other way round it is wider: {sentence}");
    }
}

#[test]
fn a_changed_type_is_incompatible_in_both_directions() {
    let table = [
        (json!({"type": "string"}), json!({"type": "integer"}), "type"),
        (json!({"default": 1}), json!({"default": 2}), "default"),
        (json!({"pattern": "a"}), json!({"pattern": "b"}), "pattern"),
        (json!({"$ref": "#/a"}), json!({"$ref": "#/b"}), "$ref"),
        (json!({"x-kubernetes-list-type": "map"}), json!({"x-kubernetes-list-type": "set"}), "x-kubernetes-list-type"),
        (json!({}), json!({"x-kubernetes-preserve-unknown-fields": true}), "x-kubernetes-preserve-unknown-fields"),
    ];
    for (one, other, key) in table {
        for (old, new) in [(&one, &other), (&other, &one)] {
            let found = incompatible(&api(old.clone()), &api(new.clone()));
            assert_eq!(found.len(), 1, "{key}: {found:?}");
            assert!(found[0].starts_with(&format!("g/v1 Disk spec: {key} changed from ")), "{found:?}");
        }
    }
}

#[test]
fn fields_and_kinds_may_come_and_not_go() {
    let with = |fields: Value, required: Value| api(json!({"properties": fields, "required": required}));
    let a = json!({"a": {"items": {"properties": {"x": {"type": "string"}}}}});
    let more =
        json!({"a": {"items": {"properties": {"x": {"type": "string"}, "y": {}}}}, "b": {}, "c": {"default": 1}});
    let (few, many) = (with(a.clone(), json!([])), with(more.clone(), json!([])));
    assert_eq!(incompatible(&few, &many), Vec::<String>::new());
    assert_eq!(
        incompatible(&many, &few),
        [
            "g/v1 Disk spec.a[].y: the field is gone",
            "g/v1 Disk spec.b: the field is gone",
            "g/v1 Disk spec.c: the field is gone"
        ]
    );
    let required = with(more, json!(["b", "c"]));
    assert_eq!(incompatible(&many, &required), ["g/v1 Disk spec.b: the field is now required"], "c has a default");
    assert_eq!(incompatible(&required, &many), Vec::<String>::new());
    assert_eq!(incompatible(&few, &json!({})), ["g/v1: the group and version is gone"]);
    assert_eq!(incompatible(&json!({}), &few), Vec::<String>::new());
    let mut without = few.clone();
    without["apis/g/v1"]["schemas"] = json!({});
    assert_eq!(incompatible(&few, &without), ["g/v1 Disk: the kind is gone"]);
    assert_eq!(incompatible(&without, &few), Vec::<String>::new());
}

#[test]
fn operations_may_come_and_not_go() {
    let few = api(json!({}));
    let line = "/apis~1g~1v1/paths/~1apis~1g~1v1~1disks/get";
    assert_eq!(few.pointer(line).unwrap(), "list ?limit,pretty < application/json");
    for (now, sentence) in [
        (json!({}), "GET /apis/g/v1/disks: the operation is gone"),
        (json!({"get": "list ?limit,pretty"}), "GET /apis/g/v1/disks: bodies of application/json are no longer taken"),
        (json!({"get": "list ?pretty < application/json"}), "GET /apis/g/v1/disks: the parameter limit is gone"),
        (
            json!({"get": "get ?limit,pretty < application/json"}),
            "GET /apis/g/v1/disks: the action changed from list to get",
        ),
    ] {
        let mut today = few.clone();
        today["apis/g/v1"]["paths"]["/apis/g/v1/disks"] = now;
        assert_eq!(incompatible(&few, &today), [sentence]);
    }
    let mut today = few.clone();
    today["apis/g/v1"]["paths"] = json!({});
    assert_eq!(incompatible(&few, &today), ["g/v1: the path /apis/g/v1/disks is gone"]);
    assert_eq!(incompatible(&today, &few), Vec::<String>::new());
}

#[test]
fn texts_are_no_part_of_the_surface() {
    let named = |text: &str| {
        api(json!({"description": text, "properties": {"description": {"description": text, "type": "string"}}}))
    };
    assert_eq!(named("one"), named("other"));
    assert!(named("one").to_string().contains(r#""description":{"type":"string"}"#), "a field of that name is");
    assert!(!named("one").to_string().contains("apimachinery"));
}

#[test]
fn changes_in_the_changelog_are_allowed() {
    let changes = ["g/v1 Disk spec.a: the field is gone".to_owned(), "g/v1 Disk spec.b: the field is gone".to_owned()];
    let changelog = "# Changelog\n\n## Unreleased\n\n### Changed\n- API, incompatible: g/v1 Disk\n  spec.a: the field is gone.\n\n## 0.1.0\n- API, incompatible: g/v1 Disk spec.b: the field is gone.\n";
    assert_eq!(unlisted(&changes, changelog), ["- API, incompatible: g/v1 Disk spec.b: the field is gone."]);
    assert_eq!(unlisted(&changes, "").len(), 2);
    assert_eq!(unlisted(&[], changelog), Vec::<String>::new());
}
