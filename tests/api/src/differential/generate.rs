//! Sequences from a seed: all verbs, patch types, several managers, selectors, pages, watches, bad input.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::bodies::{KINDS, labels, managed_fields, metadata, object, once_in, pick, spec, status};
use super::{Sequence, Step};

const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";

/// The sequence of a seed: always the same for the same seed.
pub fn sequence(seed: u64) -> Sequence {
    let mut rng = StdRng::seed_from_u64(seed);
    let length = rng.random_range(3..16);
    // Most requests are about one kind, and most find an object there.
    let main = pick(&mut rng, KINDS);
    let mut steps: Vec<Step> = Vec::new();
    if !once_in(&mut rng, 5) {
        let body = sound(main.1, "a");
        steps.push(request("POST", with_query(collection(main.0), vec![]), JSON, Some(body)));
    }
    for _ in 0..length {
        let kind = if once_in(&mut rng, 6) { pick(&mut rng, KINDS) } else { main };
        steps.push(step(&mut rng, kind));
    }
    if once_in(&mut rng, 3) {
        let (plural, _) = pick(&mut rng, KINDS);
        let at = rng.random_range(0..steps.len());
        steps.insert(at, watch(&mut rng, plural));
    }
    if once_in(&mut rng, 12) {
        let zones = zones(&mut rng);
        steps.extend(zones);
    }
    Sequence { steps }
}

/// A few steps about one object of a kind without namespaces: others are there too, so that lists ask for it alone.
fn zones(rng: &mut StdRng) -> Vec<Step> {
    let all = "/apis/test.example/v1/zones";
    let one = format!("{all}/@ns-zone");
    let count = rng.random_range(2..6);
    let mut steps = Vec::new();
    for _ in 0..count {
        let query = write_query(rng);
        let mut body = object(rng, "zones", "Zone", "@ns-zone");
        steps.push(match rng.random_range(0..8) {
            0 | 1 => request("POST", with_query(all.into(), query), JSON, Some(body)),
            2 => {
                body["metadata"]["resourceVersion"] = json!("@rv(@ns-zone)");
                request("PUT", with_query(one.clone(), query), JSON, Some(body))
            }
            3 => request("PATCH", format!("{one}?fieldManager=one&force=true"), APPLY, Some(applicable(body))),
            4 => request("PATCH", with_query(one.clone(), query), MERGE, Some(json!({"spec": body["spec"]}))),
            5 => request("GET", format!("{all}?fieldSelector=metadata.name%3D@ns-zone"), "", None),
            6 => request("DELETE", one.clone(), JSON, None),
            _ => request("DELETE", format!("{all}?fieldSelector=metadata.name%3D@ns-zone"), JSON, None),
        });
    }
    steps
}

/// Without what the original deals with in ways of its own when it is applied: docs/conformance.md lists it.
fn applicable(mut body: Value) -> Value {
    if let Some(metadata) = body["metadata"].as_object_mut() {
        // The original keeps it where an apply creates.
        metadata.shift_remove("deletionTimestamp");
        // The original keeps them as they are and writes the object again at the next occasion.
        metadata.retain(|_, it| !it.is_null() && it.as_object().is_none_or(|map| !map.is_empty()));
    }
    body
}

/// An object that no server refuses.
fn sound(kind: &str, name: &str) -> Value {
    let spec = match kind {
        "Disk" => json!({"sizeGb": 2}),
        "Gadget" => json!({"level": 1}),
        _ => json!({"size": 2}),
    };
    json!({"apiVersion": "test.example/v1", "kind": kind, "metadata": {"name": name, "labels": {"app": "a"}}, "spec": spec})
}

fn collection(plural: &str) -> String {
    format!("/apis/test.example/v1/namespaces/@ns/{plural}")
}

fn request(method: &str, path: String, media_type: &str, body: Option<Value>) -> Step {
    Step { method: method.into(), path, media_type: media_type.into(), accept: String::new(), body, text: None }
}

/// Adds the parameters that are set.
fn with_query(path: String, query: Vec<String>) -> String {
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

/// Parameters that every write may have.
fn write_query(rng: &mut StdRng) -> Vec<String> {
    let mut query = Vec::new();
    if once_in(rng, 10) {
        query.push(pick(rng, &["dryRun=All", "dryRun=All", "dryRun=Some", "dryRun="]).to_owned());
    }
    if once_in(rng, 5) {
        let modes = ["fieldValidation=Strict", "fieldValidation=Warn", "fieldValidation=Ignore", "fieldValidation=Odd"];
        query.push(pick(rng, &modes).to_owned());
    }
    if once_in(rng, 3) {
        query.push(format!("fieldManager={}", pick(rng, &["one", "two", "three"])));
    }
    query
}

fn name(rng: &mut StdRng) -> &'static str {
    pick(rng, &["a", "a", "a", "b", "b", "c"])
}

fn step(rng: &mut StdRng, (plural, kind): (&str, &str)) -> Step {
    let name = name(rng);
    let path = format!("{}/{name}", collection(plural));
    match rng.random_range(0..100) {
        0..18 => create(rng, plural, kind, name),
        18..38 => apply(rng, plural, kind, name),
        38..48 => {
            let query = write_query(rng);
            let body = merge_patch(rng, plural, kind);
            request("PATCH", with_query(path, query), MERGE, Some(body))
        }
        48..57 => {
            let query = write_query(rng);
            let body = json_patch(rng, plural);
            request("PATCH", with_query(path, query), JSON_PATCH, Some(body))
        }
        57..66 => update(rng, plural, kind, name),
        66..74 => write_status(rng, plural, kind, name),
        74..77 => scale(rng, plural, name),
        77..80 => read(rng, path),
        80..87 => list(rng, plural),
        87..93 => delete(rng, path),
        93..95 => delete_collection(rng, plural),
        _ => bad(rng, plural, kind, name),
    }
}

fn create(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
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

fn apply(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
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

fn merge_patch(rng: &mut StdRng, plural: &str, kind: &str) -> Value {
    let full = object(rng, plural, kind, "");
    match rng.random_range(0..14) {
        12 => json!({"metadata": {"managedFields": managed_fields(rng)}}),
        13 => json!({"spec": spec(rng, plural), "metadata": {"ownerReferences": full["metadata"]["ownerReferences"]}}),
        0..6 => json!({"spec": full["spec"]}),
        6 => json!({"metadata": {"labels": labels(rng)}}),
        7 => json!({"metadata": {"finalizers": pick(rng, &[Value::Null, json!([]), json!(["test.example/hold"])])}}),
        8 => json!({"spec": {"mounts": null, "ports": null, "size": null}}),
        9 => {
            let version = pick(rng, &[json!("@rv(a)"), json!("1"), Value::Null]);
            json!({"metadata": {"resourceVersion": version}, "spec": full["spec"]})
        }
        10 => pick(
            rng,
            &[
                json!([]),
                json!("x"),
                json!({"kind": "Other"}),
                json!({"kind": null}),
                json!({"apiVersion": "v1"}),
                json!({"apiVersion": "test.example/v2"}),
                json!({"apiVersion": null}),
                json!({"metadata": {"name": "other"}}),
                json!({"metadata": {"namespace": "elsewhere"}}),
                json!({"metadata": {"labels": {"app": null, "tier": "back"}}}),
                json!({"metadata": {"creationTimestamp": null, "generation": 9}}),
                json!({"metadata": null}),
                json!({"spec": null}),
                json!({"metadata": {"uid": "mine"}}),
            ],
        ),
        _ => full,
    }
}

fn json_patch(rng: &mut StdRng, plural: &str) -> Value {
    let disks = [
        json!({"op": "replace", "path": "/spec/sizeGb", "value": 3}),
        json!({"op": "add", "path": "/spec/user", "value": "cid"}),
        json!({"op": "add", "path": "/spec/mounts/-", "value": {"path": "/x"}}),
        json!({"op": "remove", "path": "/spec/mounts/0"}),
        json!({"op": "test", "path": "/spec/class", "value": "standard"}),
        json!({"op": "test", "path": "/spec/sizeGb", "value": 2}),
    ];
    let widgets = [
        json!({"op": "replace", "path": "/spec/size", "value": 3}),
        json!({"op": "add", "path": "/spec/args", "value": ["q"]}),
        json!({"op": "add", "path": "/spec/tags/0", "value": "new"}),
        json!({"op": "remove", "path": "/spec/nested/depth"}),
        json!({"op": "move", "from": "/spec/name", "path": "/spec/note"}),
        json!({"op": "copy", "from": "/spec/mode", "path": "/spec/note"}),
    ];
    let gadgets = [
        json!({"op": "add", "path": "/spec/routes/-", "value": {"host": "c"}}),
        json!({"op": "replace", "path": "/spec/routes/0/weight", "value": 4}),
        json!({"op": "remove", "path": "/spec/fallback"}),
        json!({"op": "add", "path": "/spec/steps", "value": [{"order": 5}]}),
        json!({"op": "add", "path": "/spec/limits", "value": {"cpu": 49}}),
        json!({"op": "move", "from": "/spec/owner", "path": "/spec/group"}),
        json!({"op": "test", "path": "/spec/level", "value": 1}),
        json!({"op": "replace", "path": "/spec/level", "value": 2}),
        json!({"op": "copy", "from": "/spec/numbers", "path": "/spec/anything"}),
        json!({"op": "add", "path": "/status", "value": {"count": 3}}),
    ];
    let both = [
        json!({"op": "add", "path": "/metadata/labels", "value": {"app": "b"}}),
        json!({"op": "replace", "path": "/metadata/managedFields", "value": [{}]}),
        json!({"op": "remove", "path": "/metadata/managedFields"}),
        json!({"op": "remove", "path": "/metadata/resourceVersion"}),
        json!({"op": "replace", "path": "", "value": {"spec": {}}}),
        json!({"op": "add", "path": "/metadata/finalizers/-", "value": "test.example/three"}),
        json!({"op": "test", "path": "/spec/none", "value": null}),
        json!({"op": "copy", "from": "/metadata/name", "path": "/metadata/labels/copied"}),
        json!({"op": "add", "path": "/metadata/labels/app", "value": "a"}),
        json!({"op": "remove", "path": "/metadata/labels/app"}),
        json!({"op": "remove", "path": "/spec/nothing"}),
        json!({"op": "replace", "path": "/spec/nothing", "value": 1}),
        json!({"op": "test", "path": "/metadata/name", "value": "a"}),
        json!({"op": "odd", "path": "/spec"}),
        json!({"op": "add", "path": "/spec/deep/er", "value": 1}),
        json!({"op": "add", "path": "spec", "value": {}}),
        json!({"op": "remove", "path": "/metadata/finalizers"}),
        json!({"op": "add", "path": "/metadata/annotations/x~1y", "value": "z"}),
        json!({"path": "/spec"}),
    ];
    let own: &[Value] = match plural {
        "disks" => &disks,
        "gadgets" => &gadgets,
        _ => &widgets,
    };
    if once_in(rng, 25) {
        return pick(rng, &[json!({"op": "add"}), json!([]), json!([1]), json!(null)]);
    }
    let count = rng.random_range(1..4);
    (0..count).map(|_| if once_in(rng, 3) { pick(rng, &both) } else { pick(rng, own) }).collect()
}

fn update(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
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

fn write_status(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
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

fn scale(rng: &mut StdRng, plural: &str, name: &str) -> Step {
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

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const YAML: &str = "application/yaml";
const PARTIAL: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PARTIAL_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

fn read(rng: &mut StdRng, path: String) -> Step {
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

fn selectors(rng: &mut StdRng, plural: &str) -> Vec<String> {
    let mut query = Vec::new();
    if once_in(rng, 2) {
        let all = [
            "app%3Da",
            "app%21%3Da",
            "app+in+%28a%2Cb%29",
            "app",
            "%21app",
            "app%3Da%2Ctier%3Dfront",
            "app+notin+%28a%29",
            "app%3D%3Da",
            "app+in+%28%29",
            "tier+in+%28%2Cfront%29",
            "size%3E3",
            "%21tier%2Capp%21%3Db",
            "+app+%3D+a+",
        ];
        query.push(format!("labelSelector={}", pick(rng, &all)));
    }
    if once_in(rng, 4) {
        let disks = ["metadata.name%3Da", "spec.class%3Dfast", "metadata.namespace%3D@ns", "spec.class%21%3Dfast"];
        let widgets = ["metadata.name%21%3Da", "spec.mode%3Dauto", "spec.size%3D1", "spec.on%3Dtrue"];
        let gadgets = ["spec.owner%3Dann", "spec.level%3D2", "spec.owner%21%3Dann%2Cspec.level%3D1", "spec.owner%3D"];
        let own: &[&str] = match plural {
            "disks" => &disks,
            "gadgets" => &gadgets,
            _ => &widgets,
        };
        query.push(format!("fieldSelector={}", pick(rng, own)));
    }
    query
}

fn list(rng: &mut StdRng, plural: &str) -> Step {
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

fn delete_options(rng: &mut StdRng) -> Option<Value> {
    let options = [
        json!({"kind": "DeleteOptions", "apiVersion": "v1"}),
        json!({"preconditions": {"uid": "@uid(a)"}}),
        json!({"preconditions": {"resourceVersion": "@rv(a)"}}),
        json!({"preconditions": {"uid": "other"}}),
        json!({"preconditions": {"resourceVersion": "1"}}),
        json!({"propagationPolicy": "Orphan"}),
        json!({"propagationPolicy": "Foreground"}),
        json!({"propagationPolicy": "Odd"}),
        json!({"gracePeriodSeconds": 0}),
        json!({"gracePeriodSeconds": -1}),
        json!({"dryRun": ["All"]}),
        json!({"dryRun": ["Odd"]}),
        json!({"orphanDependents": true, "propagationPolicy": "Background"}),
        json!({"kind": "Other", "apiVersion": "v1"}),
    ];
    once_in(rng, 2).then(|| pick(rng, &options))
}

fn delete(rng: &mut StdRng, path: String) -> Step {
    let queries = ["dryRun=All", "propagationPolicy=Foreground", "gracePeriodSeconds=0", "propagationPolicy=Odd"];
    let query = if once_in(rng, 6) { vec![pick(rng, &queries).to_owned()] } else { vec![] };
    let body = delete_options(rng);
    request("DELETE", with_query(path, query), JSON, body)
}

fn delete_collection(rng: &mut StdRng, plural: &str) -> Step {
    let mut query = selectors(rng, plural);
    if once_in(rng, 4) {
        query.push("dryRun=All".to_owned());
    }
    let body = if once_in(rng, 3) { delete_options(rng) } else { None };
    request("DELETE", with_query(collection(plural), query), JSON, body)
}

/// Selectors that no object matches of those by which a watch is told of its end.
const NEVER_AT_THE_END: [&str; 5] = ["tier", "metadata.name%3D", "size%3E3", "app+in+%28%29", "spec.owner%3Dann"];

fn watch(rng: &mut StdRng, plural: &str) -> Step {
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

fn bad(rng: &mut StdRng, plural: &str, kind: &str, name: &str) -> Step {
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
        9 => text(
            "PATCH",
            format!("{one}?fieldManager=one"),
            APPLY,
            &format!(
                "apiVersion: test.example/v1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n  {}: 4\n",
                match plural {
                    "disks" => "sizeGb",
                    "gadgets" => "level",
                    _ => "size",
                }
            ),
        ),
        10 => {
            let strict = pick(rng, &["", "?fieldValidation=Strict", "?fieldValidation=Ignore"]);
            let twice = format!(
                "{{\"apiVersion\":\"test.example/v1\",\"kind\":\"{kind}\",\"metadata\":{{\"name\":\"{name}\",\"name\":\"{name}\"}},\"spec\":{{\"sizeGb\":1,\"sizeGb\":2,\"odd\":1}}}}"
            );
            text("POST", format!("{all}{strict}"), JSON, &twice)
        }
        11 => text(
            "POST",
            all,
            "application/yaml",
            &format!("apiVersion: test.example/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{sizeGb: 1}}\n"),
        ),
        12 => request("GET", format!("{one}/nothing"), "", None),
        13 => request("GET", format!("{all}/no-such"), "", None),
        14 => request("DELETE", format!("{all}/no-such"), "", None),
        15 => request("PUT", all, JSON, Some(json!({}))),
        _ => text("DELETE", one, JSON, "{"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence() {
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
    }
}
