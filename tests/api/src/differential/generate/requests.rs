//! One request of each kind, about a kind and mostly about an object of it.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::values::{applicable, delete_options, selectors, sound, write_query};
use crate::differential::Step;
use crate::differential::bodies::{metadata, object, once_in, pick, status};

pub const MERGE: &str = "application/merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const APPLY: &str = "application/apply-patch+yaml";
pub const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const YAML: &str = "application/yaml";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

pub fn collection(plural: &str) -> String {
    format!("/apis/test.example/v1/namespaces/@ns/{plural}")
}

pub fn request(method: &str, path: String, media_type: &str, body: Option<Value>) -> Step {
    Step { method: method.into(), path, media_type: media_type.into(), accept: String::new(), body, text: None }
}

/// Adds the parameters that are set.
pub fn with_query(path: String, query: Vec<String>) -> String {
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

pub fn create(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
    let query = write_query(rng);
    let mut body = object(rng, plural, kind, name);
    if once_in(rng, 20) {
        body["metadata"] = metadata(rng, "");
        body["metadata"]["generateName"] = json!("gen-");
    } else if once_in(rng, 40) {
        body["metadata"]["name"] =
            pick(rng, &[json!("Not A Name"), json!(""), json!("x".repeat(260)), json!("-a"), json!(5)]);
    }
    request("POST", with_query(collection(plural), query), JSON, Some(body))
}

pub fn apply(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
    let mut query = vec![];
    if !once_in(rng, 25) {
        query.push(format!("fieldManager={}", pick(rng, &["one", "two", "three"])));
    }
    if once_in(rng, 3) {
        query.push(pick(rng, &["force=true", "force=true", "force=false", "force=odd"]).to_owned());
    }
    if once_in(rng, 12) {
        query.push("dryRun=All".to_owned());
    }
    if once_in(rng, 8) {
        query.push(pick(rng, &["fieldValidation=Strict", "fieldValidation=Ignore"]).to_owned());
    }
    let mut body = applicable(object(rng, plural, kind, name));
    if once_in(rng, 15) {
        body["metadata"]["resourceVersion"] = pick(rng, &[json!(format!("@rv({name})")), json!("1"), json!("")]);
    }
    if once_in(rng, 25) {
        body["metadata"]["name"] = json!("other");
    }
    let subresource = if once_in(rng, 8) { "/status" } else { "" };
    let path = format!("{}/{name}{subresource}", collection(plural));
    request("PATCH", with_query(path, query), APPLY, Some(body))
}

pub fn update(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
    let query = write_query(rng);
    let mut body = object(rng, plural, kind, name);
    let version = [json!(format!("@rv({name})")), json!(format!("@rv({name})")), json!("1"), json!("x"), json!("")];
    if !once_in(rng, 5) {
        body["metadata"]["resourceVersion"] = if once_in(rng, 8) { pick(rng, &version) } else { version[0].clone() };
    }
    if once_in(rng, 10) {
        body["metadata"]["uid"] = pick(rng, &[json!(format!("@uid({name})")), json!("other")]);
    }
    if once_in(rng, 30) {
        body["metadata"]["name"] = json!("other");
    }
    request("PUT", with_query(format!("{}/{name}", collection(plural)), query), JSON, Some(body))
}

pub fn write_status(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
    let path = format!("{}/{name}/status", collection(plural));
    let query = write_query(rng);
    let mut body = object(rng, plural, kind, name);
    body["status"] = status(rng, plural);
    match rng.random_range(0..6) {
        0 => {
            body["metadata"]["resourceVersion"] = json!(format!("@rv({name})"));
            request("PUT", with_query(path, query), JSON, Some(body))
        }
        1 => request("PUT", with_query(path, query), JSON, Some(body)),
        4 => {
            let patches = [
                json!([{"op": "add", "path": "/status", "value": body["status"]}]),
                json!([{"op": "replace", "path": "/status/phase", "value": "New"}]),
                json!([{"op": "remove", "path": "/status"}]),
                json!([{"op": "replace", "path": "/spec", "value": body["spec"]}]),
            ];
            let patch = pick(rng, &patches);
            request("PATCH", with_query(path, query), JSON_PATCH, Some(patch))
        }
        2 | 3 => {
            let patch = if once_in(rng, 3) { body } else { json!({"status": body["status"]}) };
            request("PATCH", with_query(path, query), MERGE, Some(patch))
        }
        _ => request("GET", path, "", None),
    }
}

pub fn scale(rng: &mut StdRng, plural: &str, name: &str) -> Step {
    let path = format!("{}/{name}/scale", collection(plural));
    match rng.random_range(0..3) {
        0 => request("GET", path, "", None),
        1 => {
            let count = pick(rng, &[json!(0), json!(3), json!(-1), json!("2")]);
            request("PATCH", path, MERGE, Some(json!({"spec": {"replicas": count}})))
        }
        _ => {
            let body = json!({
                "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name, "namespace": "@ns"},
                "spec": {"replicas": rng.random_range(0..4)},
            });
            request("PUT", path, JSON, Some(body))
        }
    }
}

pub fn read(rng: &mut StdRng, path: String) -> Step {
    let all = [
        "",
        "",
        "",
        "resourceVersion=0",
        "resourceVersion=1",
        "resourceVersion=x",
        "pretty=true",
        "includeObject=Object",
        "includeObject=None",
        "includeObject=Odd",
    ];
    let query = pick(rng, &all);
    let query = if query.is_empty() { vec![] } else { vec![query.to_owned()] };
    let mut step = request("GET", with_query(path, query), "", None);
    step.accept = pick(rng, &["", "", TABLE, PARTIAL, "text/html", "application/yaml", "*/*"]).to_owned();
    step
}

pub fn list(rng: &mut StdRng, plural: &str) -> Step {
    let mut query = selectors(rng, plural);
    if once_in(rng, 3) {
        query.push(format!("limit={}", pick(rng, &["1", "2", "0", "-1", "x"])));
    }
    if once_in(rng, 6) {
        // One that the server made, and some that it did not.
        let tokens = ["@continue", "@continue", "@continue", "x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjIifQ", "%21"];
        query.push(format!("continue={}", pick(rng, &tokens)));
    }
    if once_in(rng, 5) {
        query.push(format!("resourceVersion={}", pick(rng, &["0", "@rv(list)", "@rv(a)", "x", "999999999"])));
    }
    if once_in(rng, 10) {
        let all = ["Exact", "NotOlderThan", "Odd"];
        query.push(format!("resourceVersionMatch={}", pick(rng, &all)));
    }
    if once_in(rng, 20) {
        query.push(
            pick(
                rng,
                &[
                    "labelSelector=a%3D%3D%3Db",
                    "fieldSelector=spec.odd%3D1",
                    "labelSelector=%2C",
                    "sendInitialEvents=true",
                    "labelSelector=app%3Dnot+valid",
                    "timeoutSeconds=x",
                    "watch=false",
                ],
            )
            .to_owned(),
        );
    }
    let mut path = collection(plural);
    if once_in(rng, 15) {
        // Across namespaces, of which others are busy with theirs.
        path = format!("/apis/test.example/v1/{plural}");
        query.retain(|it| it.starts_with("labelSelector="));
        query.push("fieldSelector=metadata.namespace%3D@ns".to_owned());
    }
    let mut step = request("GET", with_query(path, query), "", None);
    step.accept = pick(rng, &["", "", "", TABLE, PARTIAL_LIST, YAML]).to_owned();
    step
}

pub fn delete(rng: &mut StdRng, path: String) -> Step {
    let queries = ["dryRun=All", "propagationPolicy=Foreground", "gracePeriodSeconds=0", "propagationPolicy=Odd"];
    let query = if once_in(rng, 6) { vec![pick(rng, &queries).to_owned()] } else { vec![] };
    let body = delete_options(rng);
    request("DELETE", with_query(path, query), JSON, body)
}

pub fn delete_collection(rng: &mut StdRng, plural: &str) -> Step {
    let mut query = selectors(rng, plural);
    if once_in(rng, 4) {
        query.push("dryRun=All".to_owned());
    }
    let body = if once_in(rng, 3) { delete_options(rng) } else { None };
    request("DELETE", with_query(collection(plural), query), JSON, body)
}

/// Selectors that match none of the objects whose changes end a watch.
const NEVER_AT_THE_END: [&str; 5] = ["tier", "metadata.name%3D", "size%3E3", "app+in+%28%29", "spec.owner%3Dann"];

pub fn watch(rng: &mut StdRng, plural: &str) -> Step {
    let mut query = vec!["watch=true".to_owned()];
    let starts = [
        "",
        "resourceVersion=0",
        "resourceVersion=@rv(list)",
        "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0&allowWatchBookmarks=true",
        "sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
        "allowWatchBookmarks=true",
        "sendInitialEvents=true",
        "resourceVersion=x",
        "resourceVersionMatch=Exact",
    ];
    let count = if once_in(rng, 6) { starts.len() } else { 7 };
    let start = pick(rng, &starts[..count]);
    if !start.is_empty() {
        query.push(start.to_owned());
    }
    query
        .extend(selectors(rng, plural).into_iter().filter(|it| !NEVER_AT_THE_END.iter().any(|part| it.contains(part))));
    let mut step = request("WATCH", with_query(collection(plural), query), "", None);
    step.accept = pick(rng, &["", "", "", TABLE, PARTIAL]).to_owned();
    step
}

/// The text after a number in the spec of a YAML document: mostly duplicate keys, of which the last counts.
const TWICE: [&str; 6] = [
    "",
    "  user: one\n  user: two\n",
    "  tags: [x]\n  # again\n  tags:\n  - z\n  free: {a: 1, a: 2, \"a\": 3}\nmetadata:\n  name: zz\n",
    "  nested:\n    depth: 1\n    depth: 2\n  odd: 1\n",
    "  mounts:\n  - path: /a\n    path: /b\n  - {path: /c, path: /d}\n",
    "  settings: {a: x, a: y}\n  size: 2\n  sizeGb: 2\n  level: 2\n",
];

fn number_field(plural: &str) -> &'static str {
    match plural {
        "disks" => "sizeGb",
        "gadgets" => "level",
        _ => "size",
    }
}

fn yaml_head(kind: &str, name: &str) -> String {
    format!("apiVersion: test.example/v1\nkind: {kind}\nmetadata:\n  name: {name}\n")
}

pub fn bad(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
    let all = collection(plural);
    let one = format!("{all}/{name}");
    let text = |method: &str, path: String, media: &str, text: &str| Step {
        text: Some(text.into()),
        ..request(method, path, media, None)
    };
    match rng.random_range(0..25) {
        17 => text(
            "PATCH",
            with_query(one, write_query(rng)),
            MERGE,
            "{\"spec\":{\"size\":1,\"size\":3,\"sizeGb\":3,\"level\":2,\"nope\":1,\"nope\":2}}",
        ),
        18 => text(
            "PATCH",
            with_query(one, write_query(rng)),
            JSON_PATCH,
            "[{\"op\":\"add\",\"path\":\"/spec/user\",\"value\":\"x\",\"foo\":1,\"value\":\"y\"},{\"op\":\"remove\",\"path\":\"/spec/user\",\"bar\":1}]",
        ),
        19 => text("POST", all, "application/yaml", "a: b: c\n"),
        20 => text("POST", all, "application/cbor", "{}"),
        21 => text("PATCH", one, "application/apply-patch+cbor", "{}"),
        22 => {
            let mut step = request("GET", one, "", None);
            step.accept = pick(rng, &["application/yaml", "application/cbor", "image/png", "x"]).to_owned();
            step
        }
        23 => {
            let long = "m".repeat(129);
            let manager = pick(rng, &[long.as_str(), "%01", "a%2Fb", ""]).to_owned();
            let body = sound(kind, name);
            request("POST", format!("{all}?fieldManager={manager}"), JSON, Some(body))
        }
        24 => {
            let odd = ["limit=1&limit=2", "unknown=1", "labelSelector=", "pretty=odd", "timeout=1s", "timeout=x"];
            request("GET", format!("{all}?{}", pick(rng, &odd)), "", None)
        }
        0 => text("POST", all, JSON, "{"),
        1 => text("POST", all, JSON, ""),
        2 => text("POST", all, JSON, "[]"),
        3 => text("POST", all, "text/plain", "{}"),
        4 => text("PATCH", one, "application/strategic-merge-patch+json", "{}"),
        5 => text("PATCH", one, JSON, "{}"),
        6 => text("PATCH", one, MERGE, "{"),
        7 => text("PATCH", one, JSON_PATCH, "[{\"op\":"),
        8 => text("PATCH", format!("{one}?fieldManager=one"), APPLY, ": : :"),
        9 => {
            let field = number_field(plural);
            let query = pick(rng, &["", "", "&fieldValidation=Strict", "&fieldValidation=Ignore", "&force=true"]);
            let (head, more) = (yaml_head(kind, name), pick(rng, &TWICE));
            text(
                "PATCH",
                format!("{one}?fieldManager=one{query}"),
                APPLY,
                &format!("{head}spec:\n  {field}: 4\n{more}"),
            )
        }
        10 => {
            let strict = pick(rng, &["", "?fieldValidation=Strict", "?fieldValidation=Ignore"]);
            let twice = format!(
                "{{\"apiVersion\":\"test.example/v1\",\"kind\":\"{kind}\",\"metadata\":{{\"name\":\"{name}\",\"name\":\"{name}\"}},\"spec\":{{\"sizeGb\":1,\"sizeGb\":2,\"odd\":1}}}}"
            );
            text("POST", format!("{all}{strict}"), JSON, &twice)
        }
        11 => {
            let field = number_field(plural);
            let query = pick(rng, &["", "", "?fieldValidation=Strict", "?fieldValidation=Ignore"]);
            let (head, more) = (yaml_head(kind, name), pick(rng, &TWICE));
            text("POST", format!("{all}{query}"), YAML, &format!("{head}spec:\n  {field}: 1\n{more}"))
        }
        12 => request("GET", format!("{one}/nothing"), "", None),
        13 => request("GET", format!("{all}/no-such"), "", None),
        14 => request("DELETE", format!("{all}/no-such"), "", None),
        15 => request("PUT", all, JSON, Some(json!({}))),
        _ => text("DELETE", one, JSON, "{"),
    }
}
