use super::*;

fn lines(object: Value, old: Option<Value>, namespaced: bool) -> Vec<String> {
    let short = |e: FieldError| {
        let line = e.to_string();
        line.split(" (e.g.").next().unwrap_or_default().to_string()
    };
    validate_metadata(&object, old.as_ref(), namespaced).into_iter().map(short).collect()
}

#[test]
fn create_follows_kubernetes() {
    let long = "a".repeat(64);
    let cases: Vec<(Value, bool, Vec<String>)> = vec![
        (json!({"name":"a.b","namespace":"n"}), true, vec![]),
        (json!({"name":"a"}), false, vec![]),
        (json!({"namespace":"n"}), true, vec!["metadata.name: Required value: name or generateName is required".into()]),
        (json!({"name":"a"}), true, vec!["metadata.namespace: Required value".into()]),
        (json!({"name":"a","namespace":"n"}), false, vec!["metadata.namespace: Forbidden: not allowed on this type".into()]),
        (json!({"name":"A","namespace":"n"}), true, vec!["metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character".into()]),
        (json!({"name":"a","namespace":"a.b"}), true, vec!["metadata.namespace: Invalid value: \"a.b\": must not contain dots".into()]),
        (json!({"name":"a","namespace":"n","labels":{"a":"-"}}), true, vec!["metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character".into()]),
        (json!({"name":"a","namespace":"n","labels":{"a":long.clone()}}), true, vec![format!("metadata.labels: Invalid value: \"{long}\": must be no more than 63 bytes")]),
        (json!({"name":"a","namespace":"n","labels":{"/a":"b"}}), true, vec!["metadata.labels: Invalid value: \"/a\": prefix part must be non-empty".into()]),
        (json!({"name":"a","namespace":"n","annotations":{"A.B/c":"any thing"}}), true, vec![]),
        (json!({"name":"a","namespace":"n","annotations":{"a":"x".repeat(256*1024)}}), true, vec!["metadata.annotations: Too long: may not be more than 262144 bytes".into()]),
        (json!({"name":"a","namespace":"n","finalizers":["orphan","foregroundDeletion"]}), true, vec!["metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set".into()]),
        (json!({"name":"a","namespace":"n","ownerReferences":[{"apiVersion":"v1","kind":"K","name":"","uid":"u"}]}), true, vec!["metadata.ownerReferences.name: Invalid value: \"\": must not be empty".into()]),
    ];
    for (metadata, namespaced, want) in cases {
        assert_eq!(lines(json!({"metadata": metadata}), None, namespaced), want, "{metadata}");
    }
    let two = json!([{"apiVersion":"v1","kind":"K","name":"a","uid":"u","controller":true},{"apiVersion":"v1","kind":"K","name":"b","uid":"v","controller":true}]);
    let got = lines(json!({"metadata":{"name":"a","ownerReferences":two}}), None, false);
    assert!(
        got[0].ends_with(
            "Only one reference can have Controller set to true. Found \"true\" in references for K/a and K/b"
        ),
        "{got:?}"
    );
}

#[test]
fn update_follows_kubernetes() {
    let old = json!({"metadata":{"name":"a","uid":"u","resourceVersion":"1","generation":2,"finalizers":["x/y"],"deletionTimestamp":"2026-01-01T00:00:00Z"}});
    let mut new = old.clone();
    assert!(lines(new.clone(), Some(old.clone()), false).is_empty());
    new["metadata"]["finalizers"] = json!(["x/y", "x/z"]);
    new["metadata"]["uid"] = json!("v");
    new["metadata"]["generation"] = json!(1);
    new["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(
        lines(new, Some(old), false),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/z\"}",
            "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
            "metadata.generation: Invalid value: 1: must not be decremented",
            "metadata.uid: Invalid value: \"v\": field is immutable",
        ]
    );
}

#[test]
fn names_are_generated_within_the_limit() {
    assert_eq!(generate_name("web-", [0, 1, 2, 3, 26]), "web-bcdf9");
    let long = generate_name(&"a".repeat(80), [0; 5]);
    assert_eq!(long.len(), 63);
}

#[test]
fn metadata_is_brought_into_form() {
    let mut object = json!({"metadata":{"name":"a","labels":{},"creationTimestamp":null,"colour":"red","ownerReferences":[{"kind":"K","z":1}],"annotations":{"a":null}}});
    let unknown: Vec<_> = coerce_metadata(&mut object).unwrap().into_iter().map(|u| u.path).collect();
    assert_eq!(unknown, ["metadata.colour", "metadata.ownerReferences[0].z"]);
    assert_eq!(object, json!({"metadata":{"name":"a","ownerReferences":[{"kind":"K"}],"annotations":{"a":""}}}));
    let mut wrong = json!({"metadata":{"labels":{"a":1}}});
    assert_eq!(
        coerce_metadata(&mut wrong).unwrap_err().to_string(),
        "json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"
    );
}
