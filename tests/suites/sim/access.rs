//! Authorisation, with the product's own rules.

use evroc_api::compute::{Disk, VirtualMachine};
use evroc_api::infra::{Host, HostSpec, Machine, Replica, Volume};
use evroc_iam::Identity;
use evroc_testkit::objects::{HasConditions, disk, of, virtual_machine};
use evroc_testkit::{IMAGE, Platform};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{all_is_well, refusal, running_vm};

#[tokio::test]
async fn a_caller_without_a_role_gets_nothing() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    let client = platform.client_as(Identity::new("mallory", ["strangers"]));
    let vms = Api::<VirtualMachine>::default_namespaced(client.clone());
    let everything = ListParams::default();
    for (code, message) in [
        refusal(vms.list(&everything).await),
        refusal(vms.get("hello").await),
        refusal(vms.create(&PostParams::default(), &virtual_machine("mine", &["mine"])).await),
        refusal(vms.delete("hello", &DeleteParams::default()).await),
        refusal(Api::<Host>::all(client.clone()).list(&everything).await),
    ] {
        assert_eq!(code, 403, "{message}");
        assert!(message.contains("mallory"), "{message}");
    }
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_node_cannot_make_or_delete_work_and_speaks_only_for_itself() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    let client = platform.client_as(Identity::node("host-1"));
    let (machines, volumes) =
        (Api::<Machine>::default_namespaced(client.clone()), Api::<Volume>::default_namespaced(client.clone()));
    let mut machine = machines.get("hello-1").await.unwrap();
    machine.metadata = kube::core::ObjectMeta { name: Some("mine".into()), ..Default::default() };
    let volume: Volume = of(json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Volume",
        "metadata": {"name": "mine"}, "spec": {"hostName": "host-1", "sizeBytes": 1}}));
    let (create, delete) = (PostParams::default(), DeleteParams::default());
    let manager = PatchParams::apply("evroc-node");
    let hosts = Api::<Host>::all(client.clone());
    let other = Host::new("host-2", HostSpec::default());
    for (code, message) in [
        refusal(machines.create(&create, &machine).await),
        refusal(machines.delete("hello-1", &delete).await),
        refusal(volumes.create(&create, &volume).await),
        refusal(volumes.delete("hello", &delete).await),
        refusal(Api::<Replica>::default_namespaced(client.clone()).delete("any", &delete).await),
        refusal(Api::<VirtualMachine>::default_namespaced(client.clone()).get("hello").await),
        refusal(Api::<Disk>::default_namespaced(client.clone()).list(&ListParams::default()).await),
        refusal(hosts.patch("host-2", &manager, &Patch::Apply(&other)).await),
    ] {
        assert_eq!(code, 403, "{message}");
    }
    all_is_well(&platform).await;
    assert!(platform.get::<VirtualMachine>("hello").await.is_ready());
}

#[tokio::test]
async fn a_change_that_changes_nothing_succeeds_and_writes_nothing() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.at_rest().await;
    let before = platform.get::<VirtualMachine>("hello").await;
    let spec = serde_json::to_value(&before.spec).unwrap();
    let after = platform.patch::<VirtualMachine>("hello", json!({"spec": spec})).await;
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    let applied = disk("hello", IMAGE);
    let manager = PatchParams::apply("kubectl");
    let disks = platform.api::<Disk>();
    let first = disks.patch("hello", &manager, &Patch::Apply(&applied)).await.unwrap();
    let second = disks.patch("hello", &manager, &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
    all_is_well(&platform).await;
}
