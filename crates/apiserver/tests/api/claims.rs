//! Claims: no two objects hold the same.

use std::sync::Arc;

use evroc_apiserver::{ClaimKey, ClaimRefusal, ResourceKind};
use serde_json::{Value, json};

use crate::support::{DISKS, TestServer, disk};

fn holding_disks(refusal: ClaimRefusal) -> ResourceKind {
    let text = std::fs::read_to_string(crate::support::crd_dir().join("disks.yaml")).unwrap();
    let mut definition: Value = serde_saphyr::from_str(&text).unwrap();
    definition["metadata"]["name"] = json!("holders.test.example");
    definition["spec"]["names"] = json!({"kind": "Holder", "plural": "holders"});
    let mut kind = ResourceKind::from_crd(&definition).unwrap();
    kind.claims = Some(Arc::new(move |object: &Value| {
        let mounts = object.pointer("/spec/mounts").and_then(Value::as_array).into_iter().flatten().enumerate();
        mounts
            .filter_map(|(index, it)| {
                let path = it["path"].as_str()?;
                Some(ClaimKey {
                    key: format!("path/{path}"),
                    field: format!("spec.mounts[{index}].path"),
                    what: format!("path {path:?}"),
                    refusal,
                })
            })
            .collect()
    }));
    kind
}

const HOLDERS: &str = "/apis/test.example/v1/namespaces/demo/holders";

fn holder(name: &str, paths: &[&str]) -> Value {
    let mut wanted = disk(name, 1);
    wanted["kind"] = json!("Holder");
    wanted["spec"]["mounts"] = paths.iter().map(|path| json!({"path": path})).collect();
    wanted
}

#[tokio::test]
async fn a_claim_has_one_holder_until_it_is_released() {
    let server = TestServer::start_with(|it| it.kind(holding_disks(ClaimRefusal::Invalid))).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    admin.create(HOLDERS, &holder("one", &["/a", "/b"])).await;
    let (code, refused) = admin.post(HOLDERS, &holder("two", &["/c", "/b"])).await;
    assert_eq!(code, 422, "{refused}");
    assert_eq!(
        refused["message"],
        "Holder.test.example \"two\" is invalid: spec.mounts[1].path: Forbidden: path \"/b\" is in use by Holder \"one\" in namespace \"demo\""
    );
    assert_eq!(refused["details"]["causes"][0]["field"], "spec.mounts[1].path");
    assert_eq!(admin.get(&format!("{HOLDERS}/two")).await.0, 404);
    // A refused object has taken nothing.
    admin.create(HOLDERS, &holder("three", &["/c"])).await;
    // A change takes and releases in one step.
    let (code, changed) =
        admin.merge(&format!("{HOLDERS}/one"), &json!({"spec": {"mounts": [{"path": "/a"}, {"path": "/d"}]}})).await;
    assert_eq!(code, 200, "{changed}");
    admin.create(HOLDERS, &holder("two", &["/b"])).await;
    assert_eq!(admin.post(HOLDERS, &holder("four", &["/d"])).await.0, 422);
    // Deletion releases.
    admin.delete(&format!("{HOLDERS}/one")).await;
    admin.create(HOLDERS, &holder("four", &["/a", "/d"])).await;
    // A dry run sees claims and takes none.
    assert_eq!(admin.post(&format!("{HOLDERS}?dryRun=All"), &holder("five", &["/a"])).await.0, 422);
    assert_eq!(admin.post(&format!("{HOLDERS}?dryRun=All"), &holder("five", &["/e"])).await.0, 201);
    admin.create(HOLDERS, &holder("six", &["/e"])).await;
}

#[tokio::test]
async fn a_claim_may_be_a_conflict() {
    let server = TestServer::start_with(|it| it.kind(holding_disks(ClaimRefusal::Conflict))).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    admin.create(HOLDERS, &holder("one", &["/a"])).await;
    let (code, refused) = admin.post(HOLDERS, &holder("two", &["/a"])).await;
    assert_eq!((code.as_u16(), &refused["reason"]), (409, &json!("Conflict")), "{refused}");
}

#[tokio::test]
async fn of_many_that_want_one_claim_one_gets_it() {
    let server = TestServer::start_with(|it| it.kind(holding_disks(ClaimRefusal::Invalid))).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    let attempts = (0..32).map(|number| {
        let admin = admin.clone();
        async move { admin.post(HOLDERS, &holder(&format!("h{number}"), &["/only"])).await.0.as_u16() }
    });
    let mut codes = futures::future::join_all(attempts).await;
    codes.sort_unstable();
    assert_eq!((codes[0], codes[1]), (201, 422), "{codes:?}");
    let (_, list) = admin.get(HOLDERS).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(admin.get(&format!("{DISKS}?limit=1")).await.0, 200);
}
