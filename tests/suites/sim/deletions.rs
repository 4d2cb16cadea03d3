//! A delete that waits reports what blocks it: in the object's condition Ready, and in an event.

use evroc_api::compute::{Disk, VirtualMachine};
use evroc_api::iam::ResourceGroup;
use evroc_api::networking::{Subnet, VirtualPrivateCloud};
use evroc_api::run::{Revision, Service};
use evroc_testkit::objects::{HasConditions, disk, service};
use evroc_testkit::{ApiOf, IMAGE, Platform, eventually};
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{all_is_well, running_vm};

const THEIRS: &str = "example.com/backup";

/// Deletes, and waits until the object's condition contains these texts.
async fn says<K: ApiOf + HasConditions>(
    platform: &Platform,
    name: &str,
    how: &DeleteParams,
    reason: &str,
    parts: &[&str],
) {
    platform.api::<K>().delete(name, how).await.unwrap_or_else(|error| panic!("delete {name}: {error}"));
    let is_said = |it: &K| it.reason() == reason && parts.iter().all(|word| it.message().contains(word));
    let what = format!("{reason} with {parts:?}");
    let reported = platform.until::<K>(name, &what, is_said).await;
    assert_eq!(reported.ready().0, "False");
}

/// Waits for the event with the same message.
async fn is_in_events(platform: &Platform, kind: &str, reason: &str, word: &str) {
    let events = Api::<Event>::namespaced(platform.client_as(evroc_iam::Identity::operator()), "demo");
    eventually("an event reports it", || async {
        let found = events.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
        let tells = |it: &Event| {
            it.involved_object.kind.as_deref() == Some(kind)
                && it.reason.as_deref() == Some(reason)
                && it.message.as_deref().is_some_and(|it| it.contains(word))
        };
        if found.iter().any(tells) {
            return Ok(());
        }
        Err(found.iter().map(|it| format!("{:?} {:?}\n", it.reason, it.message)).collect())
    })
    .await;
}

async fn hold<K: ApiOf>(platform: &Platform, name: &str) {
    let object: K = platform.get(name).await;
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(THEIRS.into());
    platform.patch::<K>(name, json!({"metadata": {"finalizers": finalizers}})).await;
}

async fn let_go<K: ApiOf>(platform: &Platform, name: &str) {
    platform.patch::<K>(name, json!({"metadata": {"finalizers": null}})).await;
    platform.gone::<K>(name).await;
}

#[tokio::test]
async fn of_a_machine_and_its_disk() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    let plain = DeleteParams::default();
    says::<Disk>(&platform, "hello", &plain, "InUse", &["VirtualMachine \"hello\""]).await;
    is_in_events(&platform, "Disk", "InUse", "VirtualMachine \"hello\"").await;
    hold::<VirtualMachine>(&platform, "hello").await;
    platform.host().set(|b| (b.machines_never_end, b.volumes_never_go) = (true, true));
    says::<VirtualMachine>(&platform, "hello", &plain, "Terminating", &["waits for host host-1"]).await;
    is_in_events(&platform, "VirtualMachine", "Terminating", "host-1").await;
    // Another reason after the first: who set the finalizer.
    platform.host().set(|b| b.machines_never_end = false);
    let theirs = |vm: &VirtualMachine| vm.reason() == "Deleting" && vm.message().contains(THEIRS);
    platform.until::<VirtualMachine>("hello", "waiting for a finalizer", theirs).await;
    is_in_events(&platform, "VirtualMachine", "Deleting", THEIRS).await;
    let_go::<VirtualMachine>(&platform, "hello").await;
    let data = |disk: &Disk| disk.reason() == "Deleting" && disk.message().contains("waits for host host-1");
    platform.until::<Disk>("hello", "waiting for its host", data).await;
    platform.host().set(|b| b.volumes_never_go = false);
    platform.gone::<Disk>("hello").await;

    platform.create(&disk("kept", IMAGE)).await;
    platform.until::<Disk>("kept", "Ready", HasConditions::is_ready).await;
    hold::<Disk>(&platform, "kept").await;
    says::<Disk>(&platform, "kept", &plain, "Deleting", &[THEIRS]).await;
    let_go::<Disk>(&platform, "kept").await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn of_a_service_and_its_revision() {
    let platform = Platform::start().await;
    platform.images().push("demo/hello:v1", "65532");
    for name in ["web", "kept"] {
        platform.create(&service(name, "demo/hello:v1")).await;
        platform.until::<Service>(name, "Ready", HasConditions::is_ready).await;
    }
    hold::<Service>(&platform, "kept").await;
    says::<Service>(&platform, "kept", &DeleteParams::default(), "Deleting", &[THEIRS]).await;
    is_in_events(&platform, "Service", "Deleting", THEIRS).await;
    let_go::<Service>(&platform, "kept").await;

    hold::<Revision>(&platform, "web-00001").await;
    let foreground = DeleteParams::foreground();
    says::<Service>(&platform, "web", &foreground, "Deleting", &["waits for Revision \"web-00001\""]).await;
    let theirs = |it: &Revision| it.reason() == "Deleting" && it.message().contains(THEIRS);
    platform.until::<Revision>("web-00001", "waiting for a finalizer", theirs).await;
    let_go::<Revision>(&platform, "web-00001").await;
    platform.gone::<Service>("web").await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn of_a_network() {
    let platform = Platform::start().await;
    platform.until::<Subnet>("default", "Ready", HasConditions::is_ready).await;
    hold::<Subnet>(&platform, "default").await;
    hold::<VirtualPrivateCloud>(&platform, "default").await;
    says::<Subnet>(&platform, "default", &DeleteParams::default(), "Deleting", &[THEIRS]).await;
    says::<VirtualPrivateCloud>(&platform, "default", &DeleteParams::default(), "Deleting", &[THEIRS]).await;
    let none = json!({"metadata": {"finalizers": null}});
    platform.patch::<Subnet>("default", none.clone()).await;
    platform.patch::<VirtualPrivateCloud>("default", none).await;
    platform.until::<Subnet>("default", "made again", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn of_a_group_and_its_namespace() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.host().set(|b| b.machines_never_end = true);
    hold::<ResourceGroup>(&platform, "demo").await;
    let parts = ["machines.infra.evroclabs.net has 1", "infra.evroclabs.net/node in 2 resource instances"];
    says::<ResourceGroup>(&platform, "demo", &DeleteParams::default(), "NamespaceTerminating", &parts).await;
    let namespaces = Api::<Namespace>::all(platform.client_as(evroc_iam::Identity::operator()));
    let namespace = namespaces.get("demo").await.expect("the namespace");
    let conditions = namespace.status.and_then(|it| it.conditions).unwrap_or_default();
    for (condition, word) in [("NamespaceContentRemaining", parts[0]), ("NamespaceFinalizersRemaining", parts[1])] {
        let found = conditions.iter().find(|it| it.type_ == condition && it.status == "True");
        let message = found.and_then(|it| it.message.as_deref()).unwrap_or_default();
        assert!(message.contains(word), "{condition}: {message}");
    }
    platform.host().set(|b| b.machines_never_end = false);
    let theirs = |group: &ResourceGroup| group.reason() == "Deleting" && group.message().contains(THEIRS);
    platform.until::<ResourceGroup>("demo", "waiting for a finalizer", theirs).await;
    let_go::<ResourceGroup>(&platform, "demo").await;
    all_is_well(&platform).await;
}
