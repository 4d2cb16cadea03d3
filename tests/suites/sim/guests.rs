//! A virtual machine's life as its user sees it.

use std::time::Duration;

use evroc_api::compute::{Disk, VirtualMachine, VirtualMachineStatusType as State};
use evroc_api::infra::Volume;
use evroc_testkit::objects::{HasConditions, address, disk, guest_is_ready, state, virtual_machine};
use evroc_testkit::{GROUP, IMAGE, Platform};
use serde_json::json;

use super::{all_is_well, machines_of, refusal, running_vm};

#[tokio::test]
async fn a_disk_and_a_vm_run_and_the_guest_comes_up() {
    let platform = Platform::start().await;
    let vm = running_vm(&platform, "hello").await;
    assert_eq!((state(&vm), address(&vm).as_deref()), (Some(State::Running), Some("10.0.0.3")));
    let vm = platform.until::<VirtualMachine>("hello", "with its guest up", guest_is_ready).await;
    let status = vm.status.unwrap();
    assert_eq!(status.placement.unwrap().zone.as_deref(), Some("a"));
    assert_eq!(status.attached_disks[0].device, "/dev/vda");
    let disk = platform
        .until::<Disk>("hello", "used by the VM", |d| d.status.as_ref().is_some_and(|s| !s.disk_usage.is_empty()))
        .await;
    assert!(disk.is_ready());
    assert_eq!(disk.status.unwrap().disk_usage[0].vm, "hello");
    all_is_well(&platform).await;
    assert_eq!(platform.host().starts(), ["Machine/hello"]);
}

#[tokio::test]
async fn a_vm_that_comes_before_its_disk_waits_for_it() {
    let platform = Platform::start().await;
    platform.create(&virtual_machine("hello", &["hello"])).await;
    let vm = platform.until::<VirtualMachine>("hello", "without its disk", |vm| !vm.message().is_empty()).await;
    assert_eq!(state(&vm), Some(State::ErrorPvcNotFound));
    assert!(vm.message().contains("spec.diskRefs[0].name") && vm.message().contains("\"hello\""), "{}", vm.message());
    platform.host().set(|b| b.volumes_never_ready = true);
    platform.create(&disk("hello", IMAGE)).await;
    platform
        .until::<VirtualMachine>("hello", "waiting for its disk", |vm| {
            state(vm) == Some(State::WaitingForVolumeBinding)
        })
        .await;
    platform.host().set(|b| b.volumes_never_ready = false);
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn stop_and_start_keep_address_and_disk() {
    let platform = Platform::start().await;
    running_vm(&platform, "first").await;
    let before = running_vm(&platform, "second").await;
    platform.host().set(|b| b.machines_never_end = true);
    platform.patch::<VirtualMachine>("second", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("second", "Stopping", |vm| state(vm) == Some(State::Stopping)).await;
    platform.host().set(|b| b.machines_never_end = false);
    platform.until::<VirtualMachine>("second", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    assert!(machines_of(&platform, "second").await.is_empty());
    assert_eq!(platform.host().machines(), ["first"]);

    platform.delete::<VirtualMachine>("first").await;
    platform.gone::<VirtualMachine>("first").await;
    platform.patch::<VirtualMachine>("second", json!({"spec": {"running": true}})).await;
    let after = platform.until::<VirtualMachine>("second", "Ready", HasConditions::is_ready).await;
    assert_eq!((address(&after), address(&before)), (Some("10.0.0.4".into()), Some("10.0.0.4".into())));
    all_is_well(&platform).await;
    assert_eq!(platform.host().starts(), ["Machine/first", "Machine/second", "Machine/second"]);
}

#[tokio::test]
async fn deleting_a_vm_keeps_its_disk_and_frees_its_address() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.delete::<VirtualMachine>("hello").await;
    platform.gone::<VirtualMachine>("hello").await;
    assert!(machines_of(&platform, "hello").await.is_empty());
    platform
        .until::<Disk>("hello", "unused", |d| d.is_ready() && d.status.as_ref().unwrap().disk_usage.is_empty())
        .await;
    assert_eq!(platform.host().machines(), Vec::<String>::new());
    platform.create(&virtual_machine("again", &["hello"])).await;
    let again = platform.until::<VirtualMachine>("again", "Ready", HasConditions::is_ready).await;
    assert_eq!(address(&again).as_deref(), Some("10.0.0.3"));
    all_is_well(&platform).await;
}

#[tokio::test]
async fn deleting_both_at_once_ends_the_guest_before_its_data() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.host().set(|b| b.machines_never_end = true);
    platform.delete::<VirtualMachine>("hello").await;
    platform.delete::<Disk>("hello").await;
    let disk = platform.until::<Disk>("hello", "waiting for the VM", |d| d.reason() == "InUse").await;
    assert!(disk.message().contains("VirtualMachine \"hello\""), "{}", disk.message());
    assert!(
        platform.get::<Volume>("hello").await.metadata.deletion_timestamp.is_none(),
        "the guest still writes to it"
    );
    platform.host().set(|b| b.machines_never_end = false);
    platform.gone::<VirtualMachine>("hello").await;
    platform.gone::<Disk>("hello").await;
    platform.gone::<Volume>("hello").await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_guest_that_powers_off_is_started_again_after_a_pause() {
    let platform = Platform::start().await;
    let before = running_vm(&platform, "hello").await;
    platform.host().power_off("hello");
    let vm = platform.until::<VirtualMachine>("hello", "off", |vm| state(vm) == Some(State::CrashLoopBackOff)).await;
    assert!(vm.message().contains("powered itself off"), "{}", vm.message());
    assert_eq!(platform.host().machines(), Vec::<String>::new());
    platform.advance::<VirtualMachine>(Duration::from_secs(20), "hello").await;
    let after = platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    assert_eq!(address(&after), address(&before));
    all_is_well(&platform).await;
    assert_eq!(platform.host().starts(), ["Machine/hello", "Machine/hello"]);
}

#[tokio::test]
async fn a_guest_that_powers_off_while_it_is_being_stopped_stays_off() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.host().power_off("hello");
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    platform.advance::<VirtualMachine>(Duration::from_secs(1000), "hello").await;
    all_is_well(&platform).await;
    assert_eq!(platform.host().starts(), ["Machine/hello"]);
}

#[tokio::test]
async fn a_host_that_cannot_start_it_reports_the_reason_to_the_user() {
    let platform = Platform::start().await;
    platform.host().set(|b| b.start_failure = Some("qemu-system-x86_64: cannot set up guest memory".into()));
    platform.create(&disk("hello", IMAGE)).await;
    platform.create(&virtual_machine("hello", &["hello"])).await;
    let vm = platform.until::<VirtualMachine>("hello", "failed", |vm| state(vm) == Some(State::CrashLoopBackOff)).await;
    assert!(vm.message().contains("cannot set up guest memory"), "{}", vm.message());
    platform.host().set(|b| b.start_failure = None);
    platform.advance::<VirtualMachine>(Duration::from_secs(20), "hello").await;
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_guest_that_never_answers_is_ready_as_a_machine_only() {
    let platform = Platform::start().await;
    platform.host().set(|b| b.guests_never_ready = true);
    let vm = running_vm(&platform, "hello").await;
    assert!(!guest_is_ready(&vm));
    all_is_well(&platform).await;
    assert!(!guest_is_ready(&platform.get::<VirtualMachine>("hello").await));
}

#[tokio::test]
async fn changes_that_need_a_stopped_vm_are_refused_while_it_runs() {
    let platform = Platform::start().await;
    platform.create(&disk("more", IMAGE)).await;
    running_vm(&platform, "hello").await;
    let profile = json!({"spec": {"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "c1a.s"}}});
    let disks = json!({"spec": {"diskRefs": [{"name": "hello", "bootFrom": true}, {"name": "more"}]}});
    let group = json!({"spec": {"placementGroup": "web"}});
    for (field, change) in
        [("spec.vmVirtualResourcesRef", &profile), ("spec.diskRefs", &disks), ("spec.placementGroup", &group)]
    {
        let (code, message) = refusal(platform.try_patch::<VirtualMachine>("hello", change.clone()).await);
        assert_eq!(code, 422, "{message}");
        assert!(message.contains(field) && message.contains("running: false"), "{message}");
    }
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    for change in [profile, disks] {
        platform.patch::<VirtualMachine>("hello", change).await;
    }
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": true}})).await;
    let vm = platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    assert_eq!(vm.status.unwrap().attached_disks.len(), 2);
    assert_eq!(machines_of(&platform, "hello").await[0].spec.memory_bytes, 4 << 30);
    all_is_well(&platform).await;
}

/// The serial log of a virtual machine.
async fn serial_log(platform: &Platform, query: &str) -> kube::Result<String> {
    let path = format!("/apis/compute.evroclabs.net/v1alpha1/namespaces/{GROUP}/virtualmachines/hello/log{query}");
    platform.admin().request_text(http::Request::get(path).body(Vec::new()).expect("a request")).await
}

#[tokio::test]
async fn the_log_of_the_previous_run_is_kept_while_the_next_one_runs() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.until::<VirtualMachine>("hello", "with its guest up", guest_is_ready).await;
    let first = serial_log(&platform, "").await.unwrap();
    let refused = serial_log(&platform, "?previous=true").await.unwrap_err();
    assert!(refused.to_string().contains("no log of a previous run"), "{refused}");
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    assert_eq!(serial_log(&platform, "?previous=true").await.unwrap(), first, "without a machine");
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": true}})).await;
    platform.until::<VirtualMachine>("hello", "with its guest up", guest_is_ready).await;
    assert_eq!(serial_log(&platform, "?previous=true").await.unwrap(), first);
    let second = serial_log(&platform, "").await.unwrap();
    assert!(first.starts_with("run 1 of hello") && second.starts_with("run 2 of hello"), "{first} {second}");
}

async fn act(platform: &Platform, name: &str, action: &str) {
    let group = "/apis/compute.evroclabs.net/v1alpha1/namespaces";
    let path = format!("{group}/{GROUP}/virtualmachines/{name}/{action}");
    let request = http::Request::post(path).body(Vec::new()).expect("a request");
    platform.admin().request_text(request).await.unwrap_or_else(|error| panic!("{action}: {error}"));
}

#[tokio::test]
async fn a_guest_is_paused_resumed_restarted_and_ended_without_being_asked() {
    let platform = Platform::start().await;
    let before = running_vm(&platform, "hello").await;
    act(&platform, "hello", "pause").await;
    let paused = platform.until::<VirtualMachine>("hello", "Paused", |vm| state(vm) == Some(State::Paused)).await;
    assert_eq!((paused.ready().0, guest_is_ready(&paused)), ("False", false));
    act(&platform, "hello", "resume").await;
    platform.until::<VirtualMachine>("hello", "with its guest up", guest_is_ready).await;
    act(&platform, "hello", "restart").await;
    let is_again = |vm: &VirtualMachine| vm.is_ready() && vm.status.as_ref().and_then(|it| it.epoch) == Some(2);
    let after = platform.until::<VirtualMachine>("hello", "in its second run", is_again).await;
    assert_eq!(address(&after), address(&before));
    act(&platform, "hello", "stop?gracePeriodSeconds=0").await;
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    assert_eq!(platform.host().starts(), ["Machine/hello", "Machine/hello"]);
    all_is_well(&platform).await;
}
