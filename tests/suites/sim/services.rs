//! Services: revisions, where requests go, zero and back.

use std::time::Duration;

use evroc_api::conditions;
use evroc_api::infra::Replica;
use evroc_api::run::{Revision, Service};
use evroc_testkit::Platform;
use evroc_testkit::objects::{HasConditions, service, serving};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{all_is_well, refusal};

/// A service of one image that answers.
async fn running_service(platform: &Platform, name: &str) -> Service {
    platform.images().push("demo/hello:v1", "65532");
    platform.create(&service(name, "demo/hello:v1")).await;
    platform.until(name, "Ready", HasConditions::is_ready).await
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"image": format!("registry.evroc.localhost/{image}")}]}}}})
}

async fn replicas(platform: &Platform) -> Vec<String> {
    let list = platform.api::<Replica>().list(&ListParams::default()).await.unwrap();
    list.items.iter().map(ResourceExt::name_any).collect()
}

async fn until_replicas(platform: &Platform, expected: usize) -> Vec<String> {
    evroc_testkit::eventually(&format!("{expected} replicas"), || async move {
        let found = replicas(platform).await;
        if found.len() == expected { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_service_answers_and_every_generation_makes_one_revision() {
    let platform = Platform::start().await;
    let service = running_service(&platform, "web").await;
    assert_eq!(serving(&service), Some("web-00001"));
    let url = service.status.as_ref().unwrap().url.clone().unwrap();
    assert!(url.starts_with("https://svc-") && url.ends_with(".evroc.localhost:8443"), "{url}");
    platform.images().push("demo/hello:v2", "65532");
    platform.patch::<Service>("web", image("demo/hello:v2")).await;
    let service = platform.until::<Service>("web", "at its second revision", |s| serving(s) == Some("web-00002")).await;
    assert_eq!(service.status.unwrap().url.unwrap(), url, "the address stays");
    platform.until::<Service>("web", "Ready", HasConditions::is_ready).await;
    // The same again changes nothing.
    let before = platform.get::<Service>("web").await;
    let after = platform.patch::<Service>("web", image("demo/hello:v2")).await;
    assert_eq!(after.resource_version(), before.resource_version());
    all_is_well(&platform).await;
    let revisions = platform.api::<Revision>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(revisions.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["web-00001", "web-00002"]);
}

#[tokio::test]
async fn a_revision_that_is_not_ready_gets_no_requests_and_rollback_works() {
    let platform = Platform::start().await;
    running_service(&platform, "web").await;
    platform.images().push("demo/broken:v1", "65532");
    platform.host().set(|b| b.containers_exit = Some(3));
    platform.patch::<Service>("web", image("demo/broken:v1")).await;
    let service = platform.until::<Service>("web", "failed", |s| s.reason() == "ContainerExited").await;
    assert!(service.message().contains("web-00002") && service.message().contains("code 3"), "{}", service.message());
    assert_eq!(serving(&service), Some("web-00001"));
    let status = service.status.as_ref().unwrap();
    assert_eq!(status.latest_ready_revision_name.as_deref(), Some("web-00001"));
    assert_eq!(status.latest_created_revision_name.as_deref(), Some("web-00002"));
    assert!(conditions::is_true(&status.conditions, "RoutesReady"), "the old revision still answers");
    platform.host().set(|b| b.containers_exit = None);
    platform.patch::<Service>("web", image("demo/hello:v1")).await;
    let service = platform.until::<Service>("web", "Ready again", HasConditions::is_ready).await;
    assert_eq!(serving(&service), Some("web-00003"));
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_fault_of_an_image_is_reported_and_a_push_is_enough() {
    let platform = Platform::start().await;
    platform.images().push("demo/root:v1", "0");
    for (name, image, reason, part) in [
        ("missing", "demo/missing:v1", "ImageNotFound", "push"),
        ("foreign", "other/hello:v1", "ImageForeign", "demo/"),
        ("root", "demo/root:v1", "RunsAsRoot", "USER"),
    ] {
        platform.create(&service(name, image)).await;
        let service = platform.until::<Service>(name, reason, |s| s.reason() == reason).await;
        assert!(service.message().contains(part), "{}", service.message());
        assert_eq!(serving(&service), None);
    }
    assert_eq!(replicas(&platform).await, Vec::<String>::new());
    platform.images().push("demo/missing:v1", "65532");
    platform.until::<Service>("missing", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_no_failure_of_the_image() {
    let platform = Platform::start().await;
    platform.images().push("demo/hello:v1", "65532");
    platform.images().set_down(true);
    platform.create(&service("web", "demo/hello:v1")).await;
    let service = platform.until::<Service>("web", "waiting", |s| s.reason() == "RegistryUnavailable").await;
    assert_eq!(service.ready().0, "Unknown");
    platform.images().set_down(false);
    platform.until::<Service>("web", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn to_zero_without_requests_and_back_with_one() {
    let platform = Platform::builder().scale_to_zero_after(Duration::from_secs(30)).start().await;
    running_service(&platform, "web").await;
    assert_eq!(until_replicas(&platform, 1).await, ["web-00001-0"]);
    platform.gateway().report("web-00001", 0, 1).await;
    platform.advance::<Revision>(Duration::from_secs(100), "web-00001").await;
    platform.at_rest().await;
    assert_eq!(replicas(&platform).await.len(), 1, "a request is being answered");
    platform.gateway().report("web-00001", 0, 0).await;
    platform.gateway().set_busy(true);
    platform.advance::<Revision>(Duration::from_secs(31), "web-00001").await;
    platform.until::<Replica>("web-00001-0", "going", |r| r.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(platform.host().replicas(), ["web-00001-0"], "it is drained first");
    platform.gateway().set_busy(false);
    until_replicas(&platform, 0).await;
    assert_eq!(platform.host().replicas(), Vec::<String>::new());
    let service = platform.get::<Service>("web").await;
    assert!(service.is_ready() && serving(&service) == Some("web-00001"), "zero replicas are no fault");
    platform.gateway().report("web-00001", 1, 0).await;
    until_replicas(&platform, 1).await;
    platform.gateway().report("web-00001", 0, 50).await;
    until_replicas(&platform, 3).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn idle_time_is_measured_without_any_event() {
    let platform = Platform::builder().scale_to_zero_after(Duration::from_secs(1)).start().await;
    running_service(&platform, "web").await;
    until_replicas(&platform, 0).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_container_that_fails_is_reported_and_tried_again() {
    let platform = Platform::start().await;
    platform.images().push("demo/hello:v1", "65532");
    let why = "runc: no space left on device";
    platform.host().set(|b| b.container_failure = Some(why.into()));
    platform.create(&service("web", "demo/hello:v1")).await;
    let service = platform.until::<Service>("web", "failed", |s| s.reason() == "ContainerFailed").await;
    assert!(service.message().contains(why), "{}", service.message());
    platform.host().set(|b| b.container_failure = None);
    platform.advance::<Revision>(Duration::from_secs(6), "web-00001").await;
    platform.until::<Service>("web", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_superseded_revision_that_never_was_ready_gives_its_replica_back() {
    let platform = Platform::start().await;
    platform.images().push("demo/hello:v1", "65532");
    platform.images().push("demo/hello:v2", "65532");
    platform.host().set(|b| b.replicas_never_ready = true);
    platform.create(&service("web", "demo/hello:v1")).await;
    until_replicas(&platform, 1).await;
    platform.patch::<Service>("web", image("demo/hello:v2")).await;
    evroc_testkit::eventually("only the new revision has a replica", || async {
        let found = replicas(&platform).await;
        if found == ["web-00002-0"] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    platform.host().set(|b| b.replicas_never_ready = false);
    platform.until::<Service>("web", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn deleting_a_service_removes_everything_of_it_and_its_name_is_free() {
    let platform = Platform::start().await;
    let before = running_service(&platform, "web").await;
    platform.delete::<Service>("web").await;
    platform.gone::<Revision>("web-00001").await;
    until_replicas(&platform, 0).await;
    let after = running_service(&platform, "web").await;
    assert_ne!(before.status.unwrap().url, after.status.unwrap().url, "another service is another address");
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_revision_cannot_be_changed_and_a_service_needs_one_container() {
    let platform = Platform::start().await;
    running_service(&platform, "web").await;
    let (code, message) =
        refusal(platform.try_patch::<Revision>("web-00001", json!({"spec": {"service": "other"}})).await);
    assert!(code == 422 && message.contains("change its service"), "{code} {message}");
    let none = json!({"spec": {"template": {"spec": {"containers": []}}}});
    let (code, message) = refusal(platform.try_patch::<Service>("web", none).await);
    assert!(code == 422 && message.contains("spec.template.spec.containers"), "{code} {message}");
    all_is_well(&platform).await;
}
