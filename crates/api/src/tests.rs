//! Properties of every kind, and tables for the pure functions.

use crate::image_ref::ImageRef;
use serde_json::Value;

#[test]
fn every_definition_is_structural_and_named() {
    for definition in crate::definitions() {
        let name = definition.metadata.name.clone().unwrap();
        let value = serde_json::to_value(&definition).unwrap();
        let schema = value.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        assert_no_refs(schema, &name);
        assert!(name.ends_with(".evroclabs.net"), "{name}");
    }
}

fn assert_no_refs(schema: &Value, at: &str) {
    match schema {
        Value::Object(map) => {
            assert!(!map.contains_key("$ref"), "{at} has a $ref");
            map.iter().for_each(|(key, value)| assert_no_refs(value, &format!("{at}.{key}")));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_no_refs(item, at)),
        _ => {}
    }
}

#[test]
fn image_references() {
    let parsed = ImageRef::parse("registry.evroc.localhost:8443/demo/hello:v1").unwrap();
    assert_eq!(
        (parsed.host.as_str(), parsed.port, parsed.repository.as_str(), parsed.reference()),
        ("registry.evroc.localhost", Some(8443), "demo/hello", "v1")
    );
    assert_eq!(ImageRef::parse("registry.evroc.localhost/demo/hello").unwrap().reference(), "latest");
    let digest = format!("sha256:{}", "a".repeat(64));
    assert_eq!(ImageRef::parse(&format!("r.x/a/b@{digest}")).unwrap().reference(), digest);
    for wrong in [
        "nginx",
        "demo/hello:v1",
        "r.x/A/b",
        "r.x/a:b c",
        "r.x/a@sha256:12",
        "r.x:port/a",
        "r.x//a",
        "r.x/a/",
        "r x.y/a",
        " r.x/a",
        "-r.x/a",
        "r..x/a",
        ":8443/a",
    ] {
        assert!(ImageRef::parse(wrong).is_err(), "{wrong}");
    }
    let scheme = ImageRef::parse("https://r.x/a/b").unwrap_err().to_string();
    assert!(scheme.contains("leave out \"https://\""), "{scheme}");
}

#[test]
fn profiles_are_those_of_the_catalogue() {
    let names: Vec<String> = crate::compute::profiles().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 1 + 6 + 5 + 4);
    assert!(names.contains(&"test.xs".to_owned()) && !names.contains(&"c1a.xs".to_owned()));
}

#[test]
fn running_defaults_to_true_in_the_schema() {
    let definition = serde_json::to_value(crate::definitions().remove(0)).unwrap();
    let running =
        definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/running/default");
    assert_eq!(running, Some(&Value::Bool(true)));
}
