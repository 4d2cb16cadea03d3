//! The `kube` crate's runtime as an outside judge: controller, finalizer, reflector, apply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evroc_api::compute::Disk;
use evroc_testkit::objects::disk;
use evroc_testkit::{IMAGE, eventually};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::reflector::store;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::World;

const FINALIZER: &str = "suite.example/copy";

struct Copier {
    client: Client,
    ended: AtomicUsize,
}

/// Keeps a ConfigMap for each disk, and counts the disks that end.
async fn reconcile(
    disk: Arc<Disk>,
    copier: Arc<Copier>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let disks = Api::<Disk>::namespaced(copier.client.clone(), "demo");
    finalizer(&disks, FINALIZER, disk, |event| async {
        match event {
            Event::Apply(disk) => {
                let copies = Api::<ConfigMap>::namespaced(copier.client.clone(), "demo");
                let copy = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": disk.name_any(), "ownerReferences": [disk.controller_owner_ref(&())]},
                    "data": {"generation": disk.metadata.generation.unwrap_or_default().to_string()},
                });
                copies.patch(&disk.name_any(), &PatchParams::apply("copier"), &Patch::Apply(&copy)).await?;
                Ok(Action::await_change())
            }
            Event::Cleanup(_) => {
                copier.ended.fetch_add(1, Ordering::Relaxed);
                Ok(Action::await_change())
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_owns_finalizes_and_repairs() {
    let world = World::start().await;
    let platform = &world.platform;
    let config = kube::config::Kubeconfig::read_from(&world.kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("settings");
    let client = Client::try_from(config).expect("a client");
    let copier = Arc::new(Copier { client: client.clone(), ended: AtomicUsize::new(0) });
    let disks = Api::<Disk>::namespaced(client.clone(), "demo");
    let copies = Api::<ConfigMap>::namespaced(client.clone(), "demo");
    let controller = Controller::new(disks.clone(), watcher::Config::default().streaming_lists())
        .owns(copies.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), copier.clone())
        .for_each(|outcome| async {
            // An object that was changed or deleted meanwhile is reconciled again.
            drop(outcome);
        });
    let controller = tokio::spawn(controller);
    let (reader, writer) = store();
    let following = reflector(writer, watcher(disks.clone(), watcher::Config::default()).default_backoff());
    let following = tokio::spawn(following.applied_objects().for_each(|_| async {}));

    for name in ["a", "b", "c"] {
        platform.create(&disk(name, IMAGE)).await;
    }
    for name in ["a", "b", "c"] {
        let copy = platform.until::<ConfigMap>(name, "made", |_| true).await;
        assert_eq!(copy.metadata.owner_references.as_ref().expect("an owner")[0].kind, "Disk");
    }
    // A deleted child is created again.
    platform.delete::<ConfigMap>("b").await;
    platform.until::<ConfigMap>("b", "made again", |it| it.metadata.deletion_timestamp.is_none()).await;
    eventually("the reflector has all", || {
        let count = reader.state().len();
        async move { if count == 3 { Ok(()) } else { Err(format!("{count}")) } }
    })
    .await;
    for name in ["a", "b", "c"] {
        platform.delete::<Disk>(name).await;
    }
    for name in ["a", "b", "c"] {
        platform.gone::<Disk>(name).await;
        platform.gone::<ConfigMap>(name).await;
    }
    assert!(copier.ended.load(Ordering::Relaxed) >= 3);
    eventually("the reflector has none", || {
        let count = reader.state().len();
        async move { if count == 0 { Ok(()) } else { Err(format!("{count}")) } }
    })
    .await;
    assert!(disks.list(&ListParams::default()).await.expect("a list").items.is_empty());
    controller.abort();
    following.abort();
}
