//! The parameters, selectors, patches and options of requests.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::differential::bodies::{labels, managed_fields, object, once_in, pick, spec};

/// Parameters that every write may have.
pub fn write_query(rng: &mut StdRng) -> Vec<String> {
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

pub fn selectors(rng: &mut StdRng, plural: &str) -> Vec<String> {
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

/// Without what the original deals with in ways of its own when it is applied: docs/conformance.md lists it.
pub fn applicable(mut body: Value) -> Value {
    if let Some(metadata) = body["metadata"].as_object_mut() {
        // The original keeps it where an apply creates.
        metadata.shift_remove("deletionTimestamp");
        // The original keeps them as they are and writes the object again at the next occasion.
        metadata.retain(|_, it| !it.is_null() && it.as_object().is_none_or(|map| !map.is_empty()));
    }
    body
}

/// An object that no server refuses.
pub fn sound(kind: &str, name: &str) -> Value {
    let spec = match kind {
        "Disk" => json!({"sizeGb": 2}),
        "Gadget" => json!({"level": 1}),
        _ => json!({"size": 2}),
    };
    json!({"apiVersion": "test.example/v1", "kind": kind, "metadata": {"name": name, "labels": {"app": "a"}}, "spec": spec})
}

pub fn merge_patch(rng: &mut StdRng, plural: &str, kind: &str) -> Value {
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

pub fn json_patch(rng: &mut StdRng, plural: &str) -> Value {
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

pub fn delete_options(rng: &mut StdRng) -> Option<Value> {
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
