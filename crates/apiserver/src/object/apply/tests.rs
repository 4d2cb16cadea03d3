//! Apply and update against the behaviour of Kubernetes and of structured-merge-diff's own tests.

use super::*;

const VERSION: &str = "g/v1";

fn model() -> Model {
    Model::compile(&json!({"type":"object","properties":{
        "spec":{"type":"object","properties":{
            "a":{"type":"string"},"b":{"type":"string"},"n":{"type":"integer"},
            "struct":{"type":"object","properties":{"x":{"type":"string"},"y":{"type":"string"}}},
            "map":{"type":"object","additionalProperties":{"type":"string"}},
            "atomicMap":{"type":"object","x-kubernetes-map-type":"atomic","additionalProperties":{"type":"string"}},
            "atomic":{"type":"array","items":{"type":"string"}},
            "set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
            "list":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],"items":{"type":"object","properties":{
                "name":{"type":"string"},"value":{"type":"string"},"other":{"type":"string"}}}},
            "ports":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["port","protocol"],"items":{"type":"object","properties":{
                "port":{"type":"integer"},"protocol":{"type":"string","default":"TCP"},"name":{"type":"string"}}}},
            "free":{"type":"object","x-kubernetes-preserve-unknown-fields":true}
        }},
        "status":{"type":"object","properties":{"phase":{"type":"string"}}}
    }}))
    .unwrap()
}

fn writer(manager: &'static str, now: &'static str) -> Writer<'static> {
    Writer { manager, subresource: "", api_version: VERSION, has_status: true, now }
}

const T1: &str = "2026-01-01T00:00:01Z";
const T2: &str = "2026-01-01T00:00:02Z";
const T3: &str = "2026-01-01T00:00:03Z";

fn object(spec: Value) -> Value {
    json!({"apiVersion":VERSION,"kind":"K","metadata":{"name":"o","namespace":"n"},"spec":spec})
}

fn apply(
    live: Option<&Value>,
    spec: Value,
    manager: &'static str,
    now: &'static str,
    force: bool,
) -> Result<Value, ApplyError> {
    server_side_apply(&model(), live, &object(spec), force, &writer(manager, now))
}

fn update(live: Option<&Value>, spec: Value, manager: &'static str, now: &'static str) -> Value {
    let mut new = object(spec);
    track_update(&model(), live, &mut new, &writer(manager, now));
    new
}

/// `manager operation fieldsV1.spec`, one line an entry.
fn owners(object: &Value) -> Vec<String> {
    object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|e| {
            format!(
                "{} {} {}",
                e["manager"].as_str().unwrap(),
                e["operation"].as_str().unwrap(),
                e["fieldsV1"]["f:spec"]
            )
        })
        .collect()
}

#[test]
fn a_create_owns_what_it_sets_with_the_structs_around() {
    let created = update(
        None,
        json!({"a":"1","struct":{"x":"1"},"map":{"k":"v"},"list":[{"name":"n","value":"v"}],"set":["s"],"atomic":["t"]}),
        "kubectl-create",
        T1,
    );
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!(
        *entry,
        json!({"manager":"kubectl-create","operation":"Update","apiVersion":VERSION,"time":T1,"fieldsType":"FieldsV1","fieldsV1":
        {"f:spec":{".":{},"f:a":{},"f:atomic":{},"f:list":{".":{},"k:{\"name\":\"n\"}":{".":{},"f:name":{},"f:value":{}}},"f:map":{".":{},"f:k":{}},
            "f:set":{".":{},"v:\"s\"":{}},"f:struct":{".":{},"f:x":{}}}}})
    );
}

#[test]
fn an_apply_owns_leaves_items_and_entries() {
    let applied = apply(None, json!({"a":"1","struct":{"x":"1"},"map":{"k":"v"},"list":[{"name":"n","value":"v"}],"set":["s"],"atomic":["t"],"free":{"q":{"r":[1]}}}), "m", T1, false).unwrap();
    assert_eq!(
        applied["metadata"]["managedFields"][0],
        json!({"manager":"m","operation":"Apply","apiVersion":VERSION,"time":T1,"fieldsType":"FieldsV1","fieldsV1":
        {"f:spec":{"f:a":{},"f:atomic":{},"f:free":{"f:q":{".":{},"f:r":{}}},"f:list":{"k:{\"name\":\"n\"}":{".":{},"f:name":{},"f:value":{}}},"f:map":{"f:k":{}},
            "f:set":{"v:\"s\"":{}},"f:struct":{"f:x":{}}}}})
    );
}

#[test]
fn conflicts_name_every_manager_and_field() {
    let live = update(None, json!({"a":"1","b":"1","list":[{"name":"n","value":"v"}]}), "kubectl-edit", T1);
    let error = apply(Some(&live), json!({"a":"2"}), "m", T2, false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using g/v1: .spec.a");
    assert_eq!(
        error.causes(),
        json!([{"reason":"FieldManagerConflict","message":"conflict with \"kubectl-edit\" using g/v1","field":".spec.a"}])
    );
    let other = apply(Some(&live), json!({"b":"1"}), "other", T2, false).unwrap();
    let error =
        apply(Some(&other), json!({"a":"2","b":"2","list":[{"name":"n","value":"w"}]}), "m", T2, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 4 conflicts: conflicts with \"kubectl-edit\" using g/v1:\n- .spec.a\n- .spec.b\n- .spec.list[name=\"n\"].value\nconflicts with \"other\":\n- .spec.b"
    );
    let forced = apply(Some(&other), json!({"a":"2","b":"2"}), "m", T3, true).unwrap();
    assert_eq!(forced["spec"]["a"], "2");
    assert_eq!(
        owners(&forced),
        [
            r#"m Apply {"f:a":{},"f:b":{}}"#,
            r#"kubectl-edit Update {".":{},"f:list":{".":{},"k:{\"name\":\"n\"}":{".":{},"f:name":{},"f:value":{}}}}"#
        ]
    );
}

#[test]
fn equal_values_are_shared_not_fought_over() {
    let one = apply(None, json!({"a":"1"}), "one", T1, false).unwrap();
    let two = apply(Some(&one), json!({"a":"1","b":"1"}), "two", T2, false).unwrap();
    assert_eq!(owners(&two), [r#"one Apply {"f:a":{}}"#, r#"two Apply {"f:a":{},"f:b":{}}"#]);
    // One of two owners lets go: the field stays. The last lets go: it goes.
    let shared = apply(Some(&two), json!({"b":"1"}), "two", T3, false).unwrap();
    assert_eq!(shared["spec"], json!({"a":"1","b":"1"}));
    let gone = apply(Some(&shared), json!({}), "one", T3, false).unwrap();
    assert_eq!(gone["spec"], json!({"b":"1"}));
    assert_eq!(owners(&gone), [r#"two Apply {"f:b":{}}"#, "one Apply {}"]);
}

#[test]
fn fields_that_are_no_longer_applied_are_removed() {
    for (first, second, want) in [
        (json!({"a":"1","b":"1"}), json!({"a":"1"}), json!({"a":"1"})),
        (json!({"struct":{"x":"1","y":"1"}}), json!({"struct":{"x":"1"}}), json!({"struct":{"x":"1"}})),
        (json!({"a":"1","struct":{"x":"1"}}), json!({"a":"1"}), json!({"a":"1"})),
        (json!({"a":"1","map":{"k":"1","l":"1"}}), json!({"a":"1","map":{"k":"1"}}), json!({"a":"1","map":{"k":"1"}})),
        (json!({"a":"1","map":{"k":"1"}}), json!({"a":"1"}), json!({"a":"1"})),
        (json!({"set":["a","b","c"]}), json!({"set":["a","c"]}), json!({"set":["a","c"]})),
        (
            json!({"list":[{"name":"a"},{"name":"b","value":"1"}]}),
            json!({"list":[{"name":"b"}]}),
            json!({"list":[{"name":"b"}]}),
        ),
        (json!({"atomic":["a","b"]}), json!({"atomic":["b"]}), json!({"atomic":["b"]})),
        (json!({"atomicMap":{"a":"1"}}), json!({"atomicMap":{"b":"1"}}), json!({"atomicMap":{"b":"1"}})),
        (json!({"free":{"a":{"b":1,"c":2}}}), json!({"free":{"a":{"c":2}}}), json!({"free":{"a":{"c":2}}})),
    ] {
        let live = apply(None, first.clone(), "m", T1, false).unwrap();
        let new = apply(Some(&live), second.clone(), "m", T2, false).unwrap();
        assert_eq!(new["spec"], want, "{first} then {second}");
    }
}

#[test]
fn lists_merge_by_key_and_keep_the_applied_order() {
    let live = update(
        None,
        json!({"list":[{"name":"a","value":"1"},{"name":"b"},{"name":"c"}],"set":["x","y"],"ports":[{"port":80,"protocol":"UDP"}]}),
        "u",
        T1,
    );
    let new = apply(Some(&live), json!({"list":[{"name":"c"},{"name":"d"},{"name":"a","other":"2"}],"set":["z","x"],"ports":[{"port":80,"name":"web"}]}), "m", T2, false).unwrap();
    assert_eq!(
        new["spec"]["list"],
        json!([{"name":"b"},{"name":"c"},{"name":"d"},{"name":"a","value":"1","other":"2"}])
    );
    assert_eq!(new["spec"]["set"], json!(["z", "x", "y"]));
    assert_eq!(new["spec"]["ports"], json!([{"port":80,"protocol":"UDP"},{"port":80,"name":"web"}]));
}

#[test]
fn updates_take_over_what_they_change() {
    let live = apply(None, json!({"a":"1","b":"1","set":["x"]}), "m", T1, false).unwrap();
    let mut spec = live["spec"].clone();
    spec["a"] = json!("2");
    spec["set"] = json!(["x", "y"]);
    spec.as_object_mut().unwrap().remove("b");
    let new = update(Some(&live), spec, "u", T2);
    assert_eq!(owners(&new), [r#"m Apply {"f:set":{"v:\"x\"":{}}}"#, r#"u Update {"f:a":{},"f:set":{"v:\"y\"":{}}}"#]);
    let error = apply(Some(&new), json!({"a":"1","set":["x"]}), "m", T3, false).unwrap_err();
    assert!(error.to_string().contains(".spec.a"), "{error}");
}

#[test]
fn time_stands_still_when_nothing_changes() {
    let live = apply(None, json!({"a":"1"}), "m", T1, false).unwrap();
    assert_eq!(apply(Some(&live), json!({"a":"1"}), "m", T2, false).unwrap(), live);
    let updated = update(Some(&live), json!({"a":"1"}), "m", T2);
    assert_eq!(updated["metadata"]["managedFields"], live["metadata"]["managedFields"]);
}

#[test]
fn status_belongs_to_its_endpoint() {
    let mut new = object(json!({"a":"1"}));
    new["status"] = json!({"phase":"x"});
    track_update(&model(), None, &mut new, &writer("u", T1));
    assert_eq!(new["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:spec":{".":{},"f:a":{}}}));
    reset_unwritable(None, &mut new, "", true);
    assert_eq!(new.get("status"), None);

    let live = new;
    let status = Writer { subresource: "status", ..writer("controller", T2) };
    let mut applied = object(json!({"a":"changed"}));
    applied["status"] = json!({"phase":"Running"});
    let mut merged = server_side_apply(&model(), Some(&live), &applied, false, &status).unwrap();
    reset_unwritable(Some(&live), &mut merged, "status", true);
    assert_eq!(merged["spec"], json!({"a":"1"}));
    assert_eq!(merged["status"], json!({"phase":"Running"}));
    assert_eq!(
        merged["metadata"]["managedFields"][0],
        json!({"manager":"controller","operation":"Apply","apiVersion":VERSION,"time":T2,"fieldsType":"FieldsV1",
        "fieldsV1":{"f:status":{"f:phase":{}}},"subresource":"status"})
    );
}

#[test]
fn managed_fields_can_be_dropped_and_are_rebuilt_on_apply() {
    let live = update(None, json!({"a":"1"}), "u", T1);
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([]);
    track_update(&model(), Some(&live), &mut new, &writer("u", T2));
    assert_eq!(new["metadata"].get("managedFields"), None);
    let same = update(Some(&new), json!({"a":"2"}), "u", T2);
    assert_eq!(same["metadata"].get("managedFields"), None);
    let error = apply(Some(&same), json!({"a":"3"}), "m", T3, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using g/v1: .spec.a"
    );
    let applied = apply(Some(&same), json!({"a":"2"}), "m", T3, false).unwrap();
    assert_eq!(owners(&applied), [r#"m Apply {"f:a":{}}"#, r#"before-first-apply Update {".":{},"f:a":{}}"#]);
    // Nonsense in a request does not fail it: the stored entries count.
    let mut wrong = live.clone();
    wrong["metadata"]["managedFields"] = json!([{"operation":"Dance"}]);
    track_update(&model(), Some(&live), &mut wrong, &writer("u", T2));
    assert_eq!(wrong, live);
}

#[test]
fn kubectl_comes_from_client_side_apply_without_conflict() {
    let last = json!({"apiVersion":VERSION,"kind":"K","metadata":{"name":"o","namespace":"n","annotations":{}},"spec":{"a":"1","b":"1"}}).to_string();
    let mut live = object(json!({"a":"1","b":"2"}));
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    track_update(&model(), None, &mut live, &writer("kubectl-client-side-apply", T1));
    let error = apply(Some(&live), json!({"a":"3","b":"3"}), "kubectl", T2, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using g/v1: .spec.b"
    );
    let migrated = apply(Some(&live), json!({"a":"3"}), "kubectl", T2, false).unwrap();
    assert_eq!(migrated["spec"]["a"], "3");
    assert_eq!(
        migrated["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"],
        json!(
            "{\"apiVersion\":\"g/v1\",\"kind\":\"K\",\"metadata\":{\"name\":\"o\",\"namespace\":\"n\"},\"spec\":{\"a\":\"3\"}}\n"
        )
    );
    assert!(apply(Some(&live), json!({"a":"3"}), "else", T2, false).is_err());
}

#[test]
fn wrong_requests_have_the_messages_of_kubernetes() {
    let live = update(None, json!({"a":"1"}), "u", T1);
    let refused = |applied: Value| {
        server_side_apply(&model(), Some(&live), &applied, false, &writer("m", T2)).unwrap_err().to_string()
    };
    assert_eq!(
        refused(object(json!({"zz":1}))),
        "failed to create typed patch object (n/o; g/v1, Kind=K): .spec.zz: field not declared in schema"
    );
    assert_eq!(
        refused(object(json!({"n":"x"}))),
        "failed to create typed patch object (n/o; g/v1, Kind=K): .spec.n: expected numeric (int or float), got string"
    );
    assert!(
        refused(object(json!({"list":[{"name":"a"},{"name":"a"}]})))
            .ends_with(".spec.list: duplicate entries for key [name=\"a\"]")
    );
    let mut version = object(json!({}));
    version["apiVersion"] = json!("g/v2");
    assert_eq!(
        refused(version),
        "Incorrect version specified in apply patch. Specified patch version: g/v2, expected: g/v1"
    );
    let mut managed = object(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    assert_eq!(refused(managed), "metadata.managedFields must be nil");
}

#[test]
fn many_updaters_are_folded() {
    let mut live = update(None, json!({"map":{"k0":"v"}}), "u0", "2026-01-01T00:00:00Z");
    for i in 1..15 {
        let mut new = live.clone();
        new["spec"]["map"][format!("k{i}")] = json!("v");
        let (name, now) = (format!("u{i}"), format!("2026-01-01T00:00:{i:02}Z"));
        track_update(
            &model(),
            Some(&live),
            &mut new,
            &Writer { manager: &name, subresource: "", api_version: VERSION, has_status: true, now: &now },
        );
        live = new;
    }
    let names: Vec<_> =
        live["metadata"]["managedFields"].as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
    assert_eq!(names, ["ancient-changes", "u6", "u7", "u8", "u9", "u10", "u11", "u12", "u13", "u14"]);
}

#[test]
fn metadata_is_owned_but_identity_is_not() {
    let mut new = object(json!({}));
    new["metadata"]["labels"] = json!({"app.kubernetes.io/name":"x"});
    new["metadata"]["finalizers"] = json!(["a/b"]);
    new["metadata"]["ownerReferences"] = json!([{"apiVersion":"v1","kind":"X","name":"y","uid":"u-1"}]);
    track_update(&model(), None, &mut new, &writer("u", T1));
    assert_eq!(
        new["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:metadata":{
        "f:finalizers":{".":{},"v:\"a/b\"":{}},"f:labels":{".":{},"f:app.kubernetes.io/name":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"u-1\"}":{}}},"f:spec":{}})
    );
}

#[test]
fn the_default_manager_is_the_user_agents_program() {
    assert_eq!(default_manager("kubectl/v1.32.0 (linux/amd64)"), "kubectl");
    assert_eq!(default_manager("Mozilla"), "Mozilla");
    assert_eq!(default_manager(&"x".repeat(300)).len(), 128);
}

/// A schema of one list and one map, granular or atomic.
fn changing(is_granular: bool) -> Model {
    let (list, map) = if is_granular { ("map", "granular") } else { ("atomic", "atomic") };
    let mut schema = json!({"type":"object","properties":{"spec":{"type":"object","properties":{
        "list":{"type":"array","x-kubernetes-list-type":list,"items":{"type":"object","properties":{
            "name":{"type":"string"},"value":{"type":"string"}}}},
        "struct":{"type":"object","x-kubernetes-map-type":map,"properties":{"x":{"type":"string"},"y":{"type":"string"}}}}}}});
    if is_granular {
        schema["properties"]["spec"]["properties"]["list"]["x-kubernetes-list-map-keys"] = json!(["name"]);
    }
    Model::compile(&schema).unwrap()
}

/// As structured-merge-diff's own tests of schema changes: granular to atomic and back.
#[test]
fn ownership_follows_a_schema_that_changes() {
    let (granular, atomic) = (changing(true), changing(false));
    let one = json!({"list":[{"name":"a","value":"1"}],"struct":{"x":"1"}});
    let two = json!({"list":[{"name":"b","value":"2"}],"struct":{"y":"2"}});
    let apply = |model: &Model, live: Option<&Value>, spec: &Value, manager: &'static str, force| {
        server_side_apply(model, live, &object(spec.clone()), force, &writer(manager, T1))
    };
    let live = apply(&granular, None, &one, "one", false).unwrap();
    let live = apply(&granular, Some(&live), &two, "two", false).unwrap();
    assert_eq!(live["spec"]["struct"], json!({"x":"1","y":"2"}));

    // Now each is one field that both own; a change by one takes it from the other.
    let conflict = apply(&atomic, Some(&live), &one, "one", false).unwrap_err();
    assert_eq!(
        conflict.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"two\":\n- .spec.list\n- .spec.struct"
    );
    let forced = apply(&atomic, Some(&live), &one, "one", true).unwrap();
    assert_eq!(forced["spec"], one);
    assert_eq!(owners(&forced), [r#"one Apply {"f:list":{},"f:struct":{}}"#]);
    let mut updated = live.clone();
    updated["spec"]["struct"] = json!({"x":"9"});
    track_update(&atomic, Some(&live), &mut updated, &writer("three", T2));
    assert_eq!(
        owners(&updated),
        [r#"one Apply {"f:list":{}}"#, r#"two Apply {"f:list":{}}"#, r#"three Update {"f:struct":{}}"#]
    );

    // From one field to many nothing is invented: the former owner still owns it all, and its parts go to those who apply them.
    let live = apply(&atomic, None, &one, "one", false).unwrap();
    let live = apply(&granular, Some(&live), &two, "two", false).unwrap();
    assert_eq!(live["spec"]["struct"], json!({"x":"1","y":"2"}));
    assert_eq!(owners(&live)[0], r#"one Apply {"f:list":{},"f:struct":{}}"#);
    let live = apply(&granular, Some(&live), &json!({}), "one", false).unwrap();
    // The value that it held as part of the whole has no owner now, and stays.
    assert_eq!(live["spec"]["struct"], json!({"x":"1","y":"2"}));
}
