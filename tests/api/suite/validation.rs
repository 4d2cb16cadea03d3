//! Schema, rules, unknown and duplicate fields, defaults, pruning.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Space, causes, disk, widget};

#[tokio::test]
async fn invalid_objects_are_refused_with_every_cause() {
    let space = Space::new().await;
    let mut wanted = disk("a", 5000);
    wanted["spec"]["class"] = json!("slow");
    let refused = space.post(&space.disks(""), &wanted).await;
    assert_eq!((refused.code, &refused.body["reason"]), (422, &json!("Invalid")), "{}", refused.body);
    let fields = causes(&refused.body);
    assert!(fields.contains(&"spec.sizeGb") && fields.contains(&"spec.class"), "{fields:?}");
    let nameless = json!({"apiVersion": "test.example/v1", "kind": "Disk", "metadata": {"name": "Not A Name"}, "spec": {"sizeGb": 1}});
    assert_eq!(space.post(&space.disks(""), &nameless).await.code, 422);
}

#[tokio::test]
async fn each_keyword_of_the_schema_counts() {
    let space = Space::new().await;
    for (spec, field) in [
        (json!({"name": ""}), "spec.name"),
        (json!({"name": "toolongname"}), "spec.name"),
        (json!({"name": "UP"}), "spec.name"),
        (json!({"size": 11}), "spec.size"),
        (json!({"size": -1}), "spec.size"),
        (json!({"size": 1.5}), "spec.size"),
        (json!({"ratio": 0}), "spec.ratio"),
        (json!({"ratio": 0.3}), "spec.ratio"),
        (json!({"on": "yes"}), "spec.on"),
        (json!({"port": 1.5}), "spec.port"),
        (json!({"mode": "other"}), "spec.mode"),
        (json!({"when": "yesterday"}), "spec.when"),
        (json!({"ip": "10.0.0"}), "spec.ip"),
        (json!({"args": ["1", "2", "3", "4"]}), "spec.args"),
        (json!({"tags": ["x", "x"]}), "spec.tags[1]"),
        (json!({"ports": [{"number": 1}, {"number": 1}]}), "spec.ports[1]"),
        (json!({"ports": [{"name": "x"}]}), "spec.ports[0].number"),
        (json!({"settings": {"a": 1}}), "spec.settings.a"),
        (json!({"choice": {"a": "x", "b": 1}}), "<nil>"),
        (json!({"template": {"kind": "Pod"}}), "spec.template.apiVersion"),
        (json!({"name": "ab", "size": 7}), "spec"),
        (json!({"args": ["bad"]}), "spec.args"),
    ] {
        let refused = space.post(&space.widgets("?dryRun=All"), &widget("a", spec.clone())).await;
        assert_eq!(refused.code, 422, "{spec}: {}", refused.body);
        assert!(causes(&refused.body).contains(&field), "{spec}: expected {field}, found {:?}", causes(&refused.body));
    }
}

#[tokio::test]
async fn rules_compare_with_the_old_object() {
    let space = Space::new().await;
    space.create(&space.disks(""), &disk("a", 5)).await;
    let refused = space.merge(&space.disks("/a"), &json!({"spec": {"class": "fast"}})).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().contains("class is immutable"), "{}", refused.body);
    let same = space.merge(&space.disks("/a"), &json!({"spec": {"class": "standard"}})).await;
    assert_eq!(same.code, 200, "what stays as it is passes");
}

#[tokio::test]
async fn values_that_were_invalid_before_may_stay() {
    let space = Space::new().await;
    space.create(&space.widgets(""), &widget("a", json!({"ip": "10.0.0.1", "size": 7}))).await;
    let refused = space.merge(&space.widgets("/a"), &json!({"spec": {"ip": null}})).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert_eq!(space.merge(&space.widgets("/a"), &json!({"spec": {"note": "x"}})).await.code, 200);
}

#[tokio::test]
async fn defaults_are_filled_in_and_nulls_dropped() {
    let space = Space::new().await;
    let made = space
        .create(
            &space.widgets(""),
            &widget("a", json!({"mode": null, "note": null, "nested": {"inner": {}}, "ports": [{"number": 1}]})),
        )
        .await;
    assert_eq!(made["spec"]["mode"], "auto");
    assert_eq!(made["spec"]["note"], Value::Null);
    assert!(made["spec"].as_object().unwrap().contains_key("note"), "what may be null stays null");
    assert_eq!(made["spec"]["nested"], json!({"inner": {"text": "none"}, "depth": 1}));
    assert_eq!(made["spec"]["ports"][0]["protocol"], "TCP");
}

#[tokio::test]
async fn unknown_fields_are_dropped_reported_or_refused() {
    let space = Space::new().await;
    let mut wanted = disk("a", 5);
    wanted["spec"]["colour"] = json!("blue");
    let strict = space.disks("?fieldValidation=Strict");
    let refused = space.post(&strict, &wanted).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().contains("unknown field \"spec.colour\""), "{}", refused.body);
    let made = space.post(&space.disks("?fieldValidation=Warn"), &wanted).await;
    assert_eq!(made.code, 201);
    assert_eq!(made.header_values("warning"), ["299 - \"unknown field \\\"spec.colour\\\"\""]);
    assert!(space.get(&space.disks("/a")).await.body["spec"].get("colour").is_none());
    wanted["metadata"]["name"] = json!("b");
    let quiet = space.post(&space.disks("?fieldValidation=Ignore"), &wanted).await;
    assert!(quiet.header_values("warning").is_empty());
    let twice =
        r#"{"apiVersion":"test.example/v1","kind":"Disk","metadata":{"name":"c"},"spec":{"sizeGb":1,"sizeGb":2}}"#;
    let refused = space.send(Method::POST, &strict, "application/json", twice).await;
    assert_eq!(refused.code, 400, "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().contains("duplicate field \"spec.sizeGb\""), "{}", refused.body);
}

#[tokio::test]
async fn duplicate_keys_in_yaml_are_reported_by_line() {
    let space = Space::new().await;
    let text = |name: &str| {
        format!(
            "apiVersion: test.example/v1\nkind: Disk\nmetadata: {{name: {name}}}\nspec:\n  sizeGb: 1\n  tags: [x]\n  sizeGb: 2\n  tags:\n  - z\n"
        )
    };
    let lines = ["line 7: key \"sizeGb\" already set in map", "line 9: key \"tags\" already set in map"];
    let expected = lines.map(|it| format!("299 - {it:?}"));
    let all = format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "));
    let (make, apply) = (
        (Method::POST, "", "application/yaml"),
        (Method::PATCH, "/b?fieldManager=one&", "application/apply-patch+yaml"),
    );
    for (name, (method, path, media), refusal) in [
        ("a", make, format!("Disk in version \"v1\" cannot be handled as a Disk: strict decoding error: {all}")),
        ("b", apply, format!("error strict decoding YAML: error converting YAML to JSON: {all}")),
    ] {
        let send = async |mode: &str| {
            let path = space.disks(&format!("{path}{}fieldValidation={mode}", if path.is_empty() { "?" } else { "" }));
            space.send(method.clone(), &path, media, text(name)).await
        };
        let refused = send("Strict").await;
        assert_eq!((refused.code, &refused.body["message"]), (400, &json!(refusal)));
        let made = send("Warn").await;
        assert_eq!(made.code, 201, "{}", made.body);
        assert_eq!(made.header_values("warning"), expected);
        assert_eq!(made.body["spec"]["sizeGb"], 2, "the last counts");
        assert!(send("Ignore").await.header_values("warning").is_empty());
    }
}

#[tokio::test]
async fn with_two_wrong_fields_of_metadata_the_first_by_name_is_reported() {
    let space = Space::new().await;
    let unmarshal = |found: &str, field: &str, wanted: &str| {
        format!("json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")
    };
    let layout = "as \"2006-01-02T15:04:05Z07:00\": cannot parse";
    for (metadata, problem) in [
        (json!({"name": 5, "labels": {"app": 1}}), unmarshal("number", "ObjectMeta.labels", "string")),
        (json!({"uid": true, "labels": {"b": {}, "a": 1}}), unmarshal("number", "ObjectMeta.labels", "string")),
        (json!({"uid": 1}), unmarshal("number", "ObjectMeta.uid", "types.UID")),
        (json!({"generation": 1.5}), unmarshal("number 1.5", "ObjectMeta.generation", "int64")),
        (json!({"ownerReferences": [1]}), unmarshal("number", "ObjectMeta.ownerReferences", "v1.OwnerReference")),
        (
            json!({"ownerReferences": [{"kind": 1}]}),
            unmarshal("number", "OwnerReference.ownerReferences.kind", "string"),
        ),
        // A value that is no time ends the decoding, with any fault before it.
        (
            json!({"labels": {"app": 1}, "managedFields": [{"time": {}}]}),
            unmarshal("object", "ManagedFieldsEntry.managedFields.time", "string"),
        ),
        (
            json!({"annotations": [], "creationTimestamp": "now"}),
            format!("parsing time \"now\" {layout} \"now\" as \"2006\""),
        ),
        (json!({"deletionTimestamp": "2020-01"}), format!("parsing time \"2020-01\" {layout} \"\" as \"-\"")),
        (
            json!({"creationTimestamp": "2020-13-01T00:00:00Z"}),
            "parsing time \"2020-13-01T00:00:00Z\": month out of range".to_owned(),
        ),
    ] {
        let wanted =
            json!({"apiVersion": "test.example/v1", "kind": "Disk", "metadata": metadata, "spec": {"sizeGb": 1}});
        let refused = space.post(&space.disks(""), &wanted).await;
        let message = format!("Disk in version \"v1\" cannot be handled as a Disk: {problem}");
        assert_eq!((refused.code, &refused.body["message"]), (400, &json!(message)));
    }
}

#[tokio::test]
async fn fields_that_the_schema_preserves_are_kept() {
    let space = Space::new().await;
    let spec = json!({"free": {"any": {"thing": [1, null, 1.5]}}, "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 1}, "x": 1}});
    let made = space.create(&space.widgets(""), &widget("a", spec)).await;
    assert_eq!(made["spec"]["free"], json!({"any": {"thing": [1, null, 1.5]}}));
    assert_eq!(made["spec"]["template"], json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "x": 1}));
}
