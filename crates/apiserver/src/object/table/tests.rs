use super::*;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn object() -> Value {
    json!({"apiVersion":"g/v1","kind":"K","metadata":{"name":"a","creationTimestamp":"2026-01-01T11:55:00Z","annotations":{"a.b/c":"x"}},
        "spec":{"n":3,"f":1.5,"b":true,"list":["x","y"],"o":{"k":"v"},"null":null},
        "status":{"conditions":[{"type":"Ready","status":"True","when":"2025-12-30T12:00:00Z"},{"type":"Other","status":"False"}]}})
}

fn cell(kind: &str, path: &str) -> Value {
    let columns = Columns::parse(&json!([{"name":"C","type":kind,"jsonPath":path}])).unwrap();
    columns.cells(&object(), now())[1].clone()
}

#[test]
fn cells_follow_the_columns_type() {
    for (kind, path, want) in [
        ("string", ".spec.n", json!("3")),
        ("integer", ".spec.n", json!(3)),
        ("integer", ".spec.f", json!(1)),
        ("number", ".spec.f", json!(1.5)),
        ("boolean", ".spec.b", json!(true)),
        ("string", ".spec.b", json!("true")),
        ("integer", ".spec.b", json!(null)),
        ("boolean", ".spec.n", json!(null)),
        ("string", ".spec.gone.deeper", json!(null)),
        ("string", ".spec.null", json!("<no value>")),
        ("integer", ".spec.null", json!(null)),
        ("string", ".spec.list", json!(r#"["x","y"]"#)),
        ("string", ".spec.list[1]", json!("y")),
        ("string", ".spec.list[-1]", json!("y")),
        ("string", ".spec.list[*]", json!("x")),
        ("string", ".spec.list[5]", json!(null)),
        ("string", ".spec.o", json!(r#"{"k":"v"}"#)),
        ("string", r#".status.conditions[?(@.type=="Ready")].status"#, json!("True")),
        ("string", r#".status.conditions[?(@.type == 'Other')].status"#, json!("False")),
        ("string", r#".status.conditions[?(@.type=="None")].status"#, json!(null)),
        ("date", r#".status.conditions[?(@.type=="Ready")].when"#, json!("2d")),
        ("string", ".status.conditions[?(@.when)].type", json!("Ready")),
        ("date", ".metadata.creationTimestamp", json!("5m")),
        ("date", ".spec.list[0]", json!("<invalid>")),
        ("string", r".metadata.annotations.a\.b/c", json!("x")),
        ("string", ".metadata.annotations['a.b/c']", json!("x")),
        ("string", "..k", json!("v")),
        ("string", "{.spec.n}", json!("3")),
    ] {
        assert_eq!(cell(kind, path), want, "{kind} {path}");
    }
}

#[test]
fn the_table_has_kubernetes_form() {
    let columns = Columns::parse(&Value::Null).unwrap();
    let object = object();
    let table =
        to_table(&columns, &[&object], &json!({"resourceVersion":"5","other":1}), IncludeObject::Metadata, true, now());
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    assert_eq!(table["columnDefinitions"][1]["name"], "Age");
    assert_eq!(table["metadata"], json!({"resourceVersion":"5"}));
    assert_eq!(table["rows"][0]["cells"], json!(["a", "5m"]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let bare = to_table(&columns, &[&object], &json!({}), IncludeObject::None, false, now());
    assert_eq!(bare["columnDefinitions"], Value::Null);
    assert_eq!(bare["rows"][0]["object"], Value::Null);
}

#[test]
fn ages_have_kubernetes_steps() {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    for (seconds, want) in [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (121, "2m1s"),
        (10 * MINUTE, "10m"),
        (179 * MINUTE, "179m"),
        (180 * MINUTE, "3h"),
        (3 * HOUR + MINUTE, "3h1m"),
        (8 * HOUR, "8h"),
        (47 * HOUR, "47h"),
        (48 * HOUR, "2d"),
        (49 * HOUR, "2d1h"),
        (8 * DAY, "8d"),
        (729 * DAY, "729d"),
        (730 * DAY, "2y"),
        (765 * DAY, "2y35d"),
        (8 * 365 * DAY, "8y"),
        (20 * 365 * DAY, "20y"),
    ] {
        assert_eq!(human_duration(seconds), want, "{seconds}");
    }
}

#[test]
fn bad_columns_are_refused() {
    for columns in [
        json!([{"name":"C","type":"text","jsonPath":".a"}]),
        json!([{"name":"C","type":"string","jsonPath":".a[x]"}]),
        json!([{"name":"C","type":"string","jsonPath":".a[?(@.b"}]),
        json!([{"type":"string","jsonPath":".a"}]),
    ] {
        assert!(Columns::parse(&columns).is_err(), "{columns}");
    }
}
