//! Resource groups: what comes with one, and what goes with it.

use evroc_api::iam::ResourceGroup;
use evroc_api::networking::{Subnet, VirtualPrivateCloud};
use evroc_testkit::Platform;
use evroc_testkit::objects::{HasConditions, of};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{all_is_well, running_vm};

fn group(name: &str) -> ResourceGroup {
    of(
        json!({"apiVersion": "iam.evroclabs.net/v1alpha1", "kind": "ResourceGroup", "metadata": {"name": name}, "spec": {"organization": "local"}}),
    )
}

#[tokio::test]
async fn a_group_has_a_network_from_the_start() {
    let platform = Platform::start().await;
    platform.create(&group("other")).await;
    let other = platform.until::<ResourceGroup>("other", "Ready", HasConditions::is_ready).await;
    assert_eq!(other.status.unwrap().namespace.as_deref(), Some("other"));
    let client = platform.client_as(evroc_iam::Identity::operator());
    assert!(Api::<VirtualPrivateCloud>::namespaced(client.clone(), "other").get("default").await.unwrap().is_ready());
    let subnets = Api::<Subnet>::namespaced(client, "other");
    let subnet = subnets.get("default").await.unwrap();
    assert_eq!(subnet.status.unwrap().available_ipv4_address_count, Some(252));

    subnets.delete("default", &DeleteParams::default()).await.unwrap();
    evroc_testkit::eventually("the subnet is made again", || async {
        subnets
            .get("default")
            .await
            .map_err(|e| e.to_string())
            .and_then(|s| s.is_ready().then_some(()).ok_or("not ready".into()))
    })
    .await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn addresses_in_use_are_counted() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    let used = |n| move |s: &Subnet| s.status.as_ref().and_then(|s| s.using_ipv4_address_count) == Some(n);
    platform.until::<Subnet>("default", "with one address in use", used(1)).await;
    platform.delete::<evroc_api::compute::VirtualMachine>("hello").await;
    let subnet = platform.until::<Subnet>("default", "with no address in use", used(0)).await;
    assert_eq!(subnet.status.unwrap().available_ipv4_address_count, Some(252));
    all_is_well(&platform).await;
}

#[tokio::test]
async fn deleting_a_group_ends_and_removes_all_that_is_in_it() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.images().push("demo/hello:v1", "65532");
    platform.create(&evroc_testkit::objects::service("web", "demo/hello:v1")).await;
    platform.until::<evroc_api::run::Service>("web", "Ready", HasConditions::is_ready).await;
    platform.delete::<ResourceGroup>("demo").await;
    platform.gone::<ResourceGroup>("demo").await;
    assert_eq!(platform.snapshot().await.into_keys().collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!((platform.host().machines(), platform.host().replicas()), (vec![], vec![]));
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_group_of_the_same_name_comes_back_clean() {
    let platform = Platform::start().await;
    let before = running_vm(&platform, "hello").await;
    platform.delete::<ResourceGroup>("demo").await;
    platform.gone::<ResourceGroup>("demo").await;
    let client = platform.client_as(evroc_iam::Identity::operator());
    let groups = Api::<ResourceGroup>::all(client);
    groups.create(&PostParams::default(), &group("demo")).await.unwrap();
    platform.until::<ResourceGroup>("demo", "Ready", HasConditions::is_ready).await;
    let after = running_vm(&platform, "hello").await;
    assert_ne!(before.uid(), after.uid());
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_group_that_is_being_emptied_reports_what_it_waits_for() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.host().set(|b| b.machines_never_end = true);
    platform.delete::<ResourceGroup>("demo").await;
    let waits = |g: &ResourceGroup| g.message().contains("machines.infra.evroclabs.net has 1");
    let demo = platform.until::<ResourceGroup>("demo", "waiting for the machine", waits).await;
    assert_eq!(demo.reason(), "NamespaceTerminating");
    platform.host().set(|b| b.machines_never_end = false);
    platform.gone::<ResourceGroup>("demo").await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_group_never_takes_a_namespace_that_is_not_a_groups() {
    let platform = Platform::start().await;
    let client = platform.client_as(evroc_iam::Identity::operator());
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(client);
    let taken = of(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "taken"}}));
    namespaces.create(&PostParams::default(), &taken).await.unwrap();
    platform.create(&group("taken")).await;
    let refused = platform.until::<ResourceGroup>("taken", "refused", |g| g.reason() == "NamespaceTaken").await;
    assert!(refused.message().contains("\"taken\""), "{}", refused.message());
    platform.delete::<ResourceGroup>("taken").await;
    platform.gone::<ResourceGroup>("taken").await;
    assert!(namespaces.get("taken").await.unwrap().metadata.deletion_timestamp.is_none());
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_later_group_of_the_same_name_has_no_images_of_the_former() {
    let platform = Platform::start().await;
    let images = platform.images();
    platform.create(&group("former")).await;
    platform.until::<ResourceGroup>("former", "Ready", HasConditions::is_ready).await;
    images.push("former/hello:v1", "65532");
    images.push("former-not/hello:v1", "65532");
    images.set_down(true);
    platform.delete::<ResourceGroup>("former").await;
    let namespaces =
        Api::<k8s_openapi::api::core::v1::Namespace>::all(platform.client_as(evroc_iam::Identity::operator()));
    evroc_testkit::eventually("its namespace is removed", || async {
        namespaces.get_opt("former").await.map_err(|e| e.to_string())?.map_or(Ok(()), |_| Err("it exists".into()))
    })
    .await;
    assert!(
        platform.api::<ResourceGroup>().get_opt("former").await.unwrap().is_some(),
        "its images are not removed yet"
    );
    images.set_down(false);
    platform.gone::<ResourceGroup>("former").await;
    assert_eq!(images.list(), ["former-not/hello:v1"]);

    platform.create(&group("former")).await;
    platform.until::<ResourceGroup>("former", "Ready", HasConditions::is_ready).await;
    let services =
        Api::<evroc_api::run::Service>::namespaced(platform.client_as(evroc_iam::Identity::operator()), "former");
    services
        .create(&PostParams::default(), &evroc_testkit::objects::service("hello", "former/hello:v1"))
        .await
        .unwrap();
    evroc_testkit::eventually("the image is not found", || async {
        let service = services.get("hello").await.map_err(|e| e.to_string())?;
        if service.reason() == "ImageNotFound" { Ok(()) } else { Err(service.message().to_owned()) }
    })
    .await;
    all_is_well(&platform).await;
}
