//! The `kube` crate's runtime as an outside judge: reflector, controller, finalizer, apply.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, WatchEvent};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::{Controller, WatchStreamExt, reflector, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::support::TestServer;

fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("test.example", "v1", "Disk"), "disks")
}

fn disks(client: &Client) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), "demo", &resource())
}

fn disk(name: &str, size: u32) -> DynamicObject {
    DynamicObject::new(name, &resource()).data(json!({"spec": {"sizeGb": size}}))
}

async fn start() -> (TestServer, Client) {
    let (server, _) = TestServer::with_demo().await;
    let client = server.api.client_as(evroc_apiserver::Identity::new("admin", ["evroc:operators"]), "demo");
    (server, client)
}

async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap_or_else(|_| panic!("not within 20 s: {what}"));
}

#[tokio::test]
async fn typed_requests_work_in_process() {
    let (_server, client) = start().await;
    let api = disks(&client);
    let made = api.create(&PostParams::default(), &disk("a", 5)).await.unwrap();
    assert_eq!(made.data["spec"]["class"], "standard");
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"sizeGb": 6}}))).await.unwrap();
    assert_eq!(patched.data["spec"]["sizeGb"], 6);
    let status = json!({"status": {"phase": "Ready"}});
    let status = api.patch_status("a", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    assert_eq!(status.data["status"]["phase"], "Ready");
    assert_eq!(api.list(&ListParams::default().fields("metadata.name=a")).await.unwrap().items.len(), 1);
    assert!(api.get_opt("none").await.unwrap().is_none());
    assert_eq!(api.list_metadata(&ListParams::default()).await.unwrap().items.len(), 1);
    let error = api.create(&PostParams::default(), &disk("a", 5)).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.is_already_exists()));
    let deleted = api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(deleted.is_right());
    // Brings the cache, which answers requests for revision 0, up to the deletion.
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
    // What is left of the initial state is the mark of its end, which a watch with bookmarks from there gets, as in Kubernetes.
    let events: Vec<_> = api.watch(&WatchParams::default().timeout(1), "0").await.unwrap().collect().await;
    assert!(matches!(events.as_slice(), [Ok(WatchEvent::Bookmark(_))]), "{events:?}");
}

#[tokio::test]
async fn a_reflector_follows_by_list_and_by_stream() {
    let (_server, client) = start().await;
    let api = disks(&client);
    api.create(&PostParams::default(), &disk("before", 1)).await.unwrap();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
        watcher::Config::default().page_size(1),
    ] {
        let writer = reflector::store::Writer::new(resource());
        let store = writer.as_reader();
        let stream = reflector::reflector(writer, watcher(api.clone(), config)).default_backoff().applied_objects();
        let task = tokio::spawn(stream.for_each(|_| async {}));
        store.wait_until_ready().await.unwrap();
        assert_eq!(store.len(), 1);
        api.create(&PostParams::default(), &disk("later", 1)).await.unwrap();
        wait_for("both in the store", async || store.len() == 2).await;
        api.delete("later", &DeleteParams::default()).await.unwrap();
        wait_for("one in the store", async || store.len() == 1).await;
        task.abort();
    }
}

#[derive(Debug, thiserror::Error)]
#[error("reconciling failed")]
struct Failed(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Keeps one ConfigMap per disk, by apply, and reports in the status.
async fn reconcile(disk: Arc<DynamicObject>, client: Arc<Client>) -> Result<Action, Failed> {
    use k8s_openapi::api::core::v1::ConfigMap;
    let failed = |error: kube::Error| Failed(Box::new(error));
    let api = disks(&client);
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), "demo");
    let outcome = finalizer(&api, "test.example/suite", disk.clone(), |event| async {
        if let Event::Apply(disk) = event {
            let map = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": disk.name_any(), "ownerReferences": [{
                    "apiVersion": "test.example/v1", "kind": "Disk", "name": disk.name_any(), "uid": disk.uid(), "controller": true,
                }]},
                "data": {"size": disk.data["spec"]["sizeGb"].to_string()},
            });
            let params = PatchParams::apply("suite").force();
            maps.patch(&disk.name_any(), &params, &Patch::Apply(&map)).await.map_err(failed)?;
            let status = json!({
                "apiVersion": "test.example/v1", "kind": "Disk", "status": {"phase": "Ready"},
            });
            api.patch_status(&disk.name_any(), &params, &Patch::Apply(&status)).await.map_err(failed)?;
        }
        Ok::<_, Failed>(Action::await_change())
    })
    .await;
    outcome.map_err(|error| Failed(Box::new(error)))
}

#[tokio::test]
async fn a_controller_with_finalizer_owns_its_children() {
    use k8s_openapi::api::core::v1::ConfigMap;
    let (_server, client) = start().await;
    let api = disks(&client);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "demo");
    let controller = Controller::new_with(api.clone(), watcher::Config::default(), resource())
        .owns(maps.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(50)), Arc::new(client.clone()));
    let task = tokio::spawn(controller.for_each(|_| async {}));
    for number in 0..5 {
        api.create(&PostParams::default(), &disk(&format!("d{number}"), number + 1)).await.unwrap();
    }
    wait_for("all ready", async || {
        let list = api.list(&ListParams::default()).await.unwrap();
        list.iter().filter(|it| it.data["status"]["phase"] == "Ready").count() == 5
    })
    .await;
    let map = maps.get("d3").await.unwrap();
    assert_eq!(map.data.unwrap()["size"], "4");
    // A deleted child is made again, a change reaches it.
    maps.delete("d3", &DeleteParams::default()).await.unwrap();
    api.patch("d2", &PatchParams::default(), &Patch::Merge(json!({"spec": {"sizeGb": 77}}))).await.unwrap();
    let size = async |name: &str| maps.get_opt(name).await.unwrap().and_then(|it| it.data).map(|it| it["size"].clone());
    wait_for("child made again", async || size("d3").await.as_deref() == Some("4")).await;
    wait_for("child changed", async || size("d2").await.as_deref() == Some("77")).await;
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    wait_for("everything deleted", async || {
        api.list(&ListParams::default()).await.unwrap().items.is_empty()
            && maps.list(&ListParams::default()).await.unwrap().items.is_empty()
    })
    .await;
    task.abort();
}
