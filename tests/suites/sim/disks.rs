//! Disks: refusals, claims, and the order of deletion.

use evroc_api::compute::{Disk, VirtualMachine, VirtualMachineStatusType as State};
use evroc_testkit::objects::{HasConditions, blank_disk, disk, state, virtual_machine};
use evroc_testkit::{IMAGE, Platform};
use serde_json::json;

use super::{all_is_well, refusal, running_vm};

#[tokio::test]
async fn an_unknown_image_is_named_with_the_available_ones() {
    let platform = Platform::start().await;
    platform.create(&disk("hello", "nope.1")).await;
    let disk = platform.until::<Disk>("hello", "refused", |d| d.reason() == "DiskImageNotFound").await;
    for part in ["spec.diskImage.diskImageRef.name", "\"nope.1\"", IMAGE] {
        assert!(disk.message().contains(part), "{part}: {}", disk.message());
    }
    platform.create(&virtual_machine("hello", &["hello"])).await;
    let vm = platform.until::<VirtualMachine>("hello", "blocked", |vm| state(vm) == Some(State::DataVolumeError)).await;
    assert!(vm.message().contains("Disk \"hello\"") && vm.message().contains("nope.1"), "{}", vm.message());
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_disk_too_small_for_its_image_reports_the_minimum() {
    let platform = Platform::start().await;
    let mut small = disk("hello", IMAGE);
    small.spec.disk_size = Some(evroc_testkit::objects::of(json!({"amount": 100, "unit": "MB"})));
    platform.create(&small).await;
    let disk = platform.until::<Disk>("hello", "refused", |d| d.reason() == "DiskTooSmall").await;
    assert!(disk.message().contains("1024 MB") && disk.message().contains("100 MB"), "{}", disk.message());
    all_is_well(&platform).await;
}

#[tokio::test]
async fn an_image_that_the_host_lacks_reaches_the_user() {
    let platform = Platform::start().await;
    platform.host().set(|b| {
        b.missing_images.insert(IMAGE.into());
    });
    platform.create(&disk("hello", IMAGE)).await;
    platform.create(&virtual_machine("hello", &["hello"])).await;
    let disk = platform.until::<Disk>("hello", "failed", |d| d.reason() == "DiskImageFailed").await;
    assert!(disk.message().contains(IMAGE), "{}", disk.message());
    let vm = platform.until::<VirtualMachine>("hello", "blocked", |vm| state(vm) == Some(State::DataVolumeError)).await;
    assert!(vm.message().contains("Disk \"hello\"") && vm.message().contains(IMAGE), "{}", vm.message());
    platform.host().set(|b| b.missing_images.clear());
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_disk_in_use_is_refused_with_field_and_holder_and_is_free_after_delete() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    let (code, message) = refusal(platform.try_create(&virtual_machine("thief", &["hello"])).await);
    assert_eq!(code, 422, "{message}");
    for part in ["spec.diskRefs[0].name", "\"hello\"", "VirtualMachine"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    platform.delete::<VirtualMachine>("hello").await;
    platform.gone::<VirtualMachine>("hello").await;
    platform.create(&virtual_machine("thief", &["hello"])).await;
    platform.until::<VirtualMachine>("thief", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn of_two_vms_that_want_one_disk_at_once_exactly_one_gets_it() {
    let platform = Platform::start().await;
    platform.create(&disk("shared", IMAGE)).await;
    let names: Vec<String> = (0..8).map(|n| format!("vm-{n}")).collect();
    let vms: Vec<VirtualMachine> = names.iter().map(|name| virtual_machine(name, &["shared"])).collect();
    let outcomes = futures::future::join_all(vms.iter().map(|vm| platform.try_create(vm))).await;
    let winners: Vec<&String> = names.iter().zip(&outcomes).filter(|(_, o)| o.is_ok()).map(|(name, _)| name).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    for outcome in outcomes.into_iter().filter(Result::is_err) {
        let (code, message) = refusal(outcome);
        assert_eq!(code, 422);
        assert!(message.contains(winners[0].as_str()), "{message}");
    }
    platform.until::<VirtualMachine>(winners[0], "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_disk_of_a_stopped_vm_stays_that_vms_and_cannot_go_before_it() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    assert_eq!(refusal(platform.try_create(&virtual_machine("thief", &["hello"])).await).0, 422);
    platform.delete::<Disk>("hello").await;
    let disk = platform.until::<Disk>("hello", "waiting", |d| d.reason() == "InUse").await;
    assert!(disk.message().contains("VirtualMachine \"hello\""), "{}", disk.message());
    platform.delete::<VirtualMachine>("hello").await;
    platform.gone::<Disk>("hello").await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_blank_disk_becomes_ready_and_a_deleted_one_waits_for_its_host() {
    let platform = Platform::start().await;
    platform.create(&blank_disk("data", 3)).await;
    let disk = platform.until::<Disk>("data", "Ready", HasConditions::is_ready).await;
    assert_eq!(disk.status.unwrap().disk_size.unwrap().to_string(), "3 GB");
    assert_eq!(platform.host().volumes().await, Vec::<String>::new(), "nothing uses it");
    platform.create(&evroc_testkit::objects::disk("boot", IMAGE)).await;
    platform.create(&virtual_machine("hello", &["boot", "data"])).await;
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    platform.delete::<VirtualMachine>("hello").await;
    platform.gone::<VirtualMachine>("hello").await;
    platform.host().set(|b| b.is_silent = true);
    platform.delete::<Disk>("data").await;
    let says_on_whom = |d: &Disk| d.reason() == "Deleting" && d.message().ends_with("waits for host host-1");
    platform.until::<Disk>("data", "being deleted", says_on_whom).await;
    platform.host().set(|b| b.is_silent = false);
    platform.gone::<Disk>("data").await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_disk_that_a_stopped_vm_lets_go_is_free() {
    let platform = Platform::start().await;
    platform.create(&disk("data", IMAGE)).await;
    platform.create(&disk("boot", IMAGE)).await;
    platform.create(&virtual_machine("hello", &["boot", "data"])).await;
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    platform
        .patch::<VirtualMachine>("hello", json!({"spec": {"diskRefs": [{"name": "boot", "bootFrom": true}]}}))
        .await;
    platform.until::<Disk>("data", "unused", |d| d.status.as_ref().is_some_and(|s| s.disk_usage.is_empty())).await;
    platform.create(&virtual_machine("other", &["data"])).await;
    platform.until::<VirtualMachine>("other", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}
