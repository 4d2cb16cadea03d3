//! Volumes and images as the host's agents keep them: loss, growth, different bytes.

use evroc_api::compute::{Disk, DiskImage, VirtualMachine};
use evroc_api::conditions;
use evroc_api::infra::{Host, Volume};
use evroc_testkit::objects::HasConditions;
use evroc_testkit::{IMAGE, Platform};
use kube::ResourceExt;
use serde_json::json;

use super::{all_is_well, running_vm};

/// A disk that has been used by a virtual machine, and is not any more.
async fn ready_disk(platform: &Platform, name: &str) -> Volume {
    running_vm(platform, name).await;
    platform.delete::<VirtualMachine>(name).await;
    platform.gone::<VirtualMachine>(name).await;
    platform.until::<Disk>(name, "Ready", HasConditions::is_ready).await;
    platform.get::<Volume>(name).await
}

/// A condition of a host: status, reason and message.
fn condition(host: &Host, kind: &str) -> Option<(String, String, String)> {
    let found = conditions::get(&host.status.as_ref()?.conditions, kind)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

#[tokio::test]
async fn a_volume_that_is_lost_is_reported_and_never_made_anew() {
    let platform = Platform::start().await;
    let volume = ready_disk(&platform, "hello").await;
    assert_eq!(volume.status.unwrap().size_bytes, Some(volume.spec.size_bytes));
    platform.host().lose_volume(volume.metadata.uid.as_deref().unwrap());
    platform.host().restart_agents();
    let disk = platform.until::<Disk>("hello", "lost", |d| d.reason() == "Lost").await;
    assert!(disk.message().contains("host-1") && disk.message().contains("not made again"), "{}", disk.message());
    platform.host().restart_agents();
    all_is_well(&platform).await;
    assert_eq!(platform.host().volumes().await, Vec::<String>::new());
    platform.delete::<Disk>("hello").await;
    platform.gone::<Disk>("hello").await;
}

#[tokio::test]
async fn a_failed_look_at_the_pool_makes_and_loses_nothing() {
    let platform = Platform::start().await;
    let volume = ready_disk(&platform, "hello").await;
    platform.host().set(|b| b.pool_cannot_look = true);
    platform.host().restart_agents();
    platform.until::<Disk>("hello", "unknown", |d| d.reason() == "VolumeFailed").await;
    platform.host().set(|b| b.pool_cannot_look = false);
    platform.until::<Disk>("hello", "Ready", HasConditions::is_ready).await;
    assert_eq!(platform.host().volumes().await, [volume.uid().unwrap()]);
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_volume_grows_when_its_size_rises() {
    let platform = Platform::start().await;
    let wanted = ready_disk(&platform, "hello").await.spec.size_bytes + (1 << 30);
    platform.patch::<Volume>("hello", json!({"spec": {"sizeBytes": wanted}})).await;
    let has_grown = |v: &Volume| v.status.as_ref().is_some_and(|status| status.size_bytes == Some(wanted));
    platform.until::<Volume>("hello", "grown", has_grown).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_host_never_overwrites_other_bytes_and_publishes_what_was_deleted() {
    let platform = Platform::start().await;
    let is_ready = |i: &DiskImage| i.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, "Ready"));
    let image = platform.until::<DiskImage>(IMAGE, "published", is_ready).await;
    let (ours, theirs) = (image.spec.sha256, "11".repeat(32));
    platform.patch::<DiskImage>(IMAGE, json!({"spec": {"sha256": theirs}})).await;
    let differs = |h: &Host| condition(h, "ImagesPublished").is_some_and(|c| c.1 == "OtherBytes");
    let host = platform.until::<Host>("host-1", "reporting the difference", differs).await;
    let (status, _, message) = condition(&host, "ImagesPublished").unwrap();
    assert!(status == "False" && message.contains(&ours) && message.contains(&theirs), "{message}");
    assert_eq!(platform.get::<DiskImage>(IMAGE).await.spec.sha256, theirs, "left alone");
    platform.delete::<DiskImage>(IMAGE).await;
    platform.until::<DiskImage>(IMAGE, "published again", |i| i.spec.sha256 == ours && is_ready(i)).await;
    let in_order = |h: &Host| condition(h, "ImagesPublished").is_some_and(|c| c.0 == "True");
    platform.until::<Host>("host-1", "in order", in_order).await;
    all_is_well(&platform).await;
}
