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
async fn what_was_wrong_before_may_stay() {
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
async fn what_the_schema_preserves_is_kept() {
    let space = Space::new().await;
    let spec = json!({"free": {"any": {"thing": [1, null, 1.5]}}, "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "odd": 1}, "x": 1}});
    let made = space.create(&space.widgets(""), &widget("a", spec)).await;
    assert_eq!(made["spec"]["free"], json!({"any": {"thing": [1, null, 1.5]}}));
    assert_eq!(made["spec"]["template"], json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "x": 1}));
}
