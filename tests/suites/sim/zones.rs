//! Zones: where a virtual machine, its disks and its placement group are, and that they cannot be apart.

use evroc_api::compute::{Disk, PlacementGroup, VirtualMachine, VirtualMachineStatusType as State, zone};
use evroc_testkit::objects::{HasConditions, disk, member, of, placement_group, state, virtual_machine};
use evroc_testkit::{ApiOf, HostSize, IMAGE, Platform};
use serde_json::{Value, json};

use super::{all_is_well, machines_of, refusal};

async fn two_zones() -> Platform {
    let large = HostSize { memory_gb: 64, ..HostSize::default() };
    Platform::builder().host("host-1", "a", HostSize::default()).host("host-2", "b", large).start().await
}

#[tokio::test]
async fn what_names_no_zone_is_in_the_first_and_disks_follow() {
    let platform = two_zones().await;
    let vm = super::running_vm(&platform, "plain").await;
    assert_eq!(zone(vm.status.unwrap().placement.as_ref()), Some("a"), "not where most memory is left");
    let disk_of = |disk: &Disk| zone(disk.status.as_ref().and_then(|it| it.placement.as_ref())).map(str::to_owned);
    platform.until::<Disk>("plain", "in the zone of its VM", |disk| disk_of(disk).as_deref() == Some("a")).await;

    platform.create(&disk("far", IMAGE)).await;
    let mut far = virtual_machine("far", &["far"]);
    far.spec.placement = Some(of(json!({"zone": "b"})));
    platform.create(&far).await;
    platform.until::<VirtualMachine>("far", "Ready", HasConditions::is_ready).await;
    assert_eq!(machines_of(&platform, "far").await[0].spec.host_name, "host-2");
    platform.until::<Disk>("far", "in the zone of its VM", |disk| disk_of(disk).as_deref() == Some("b")).await;
    // The next virtual machine of the disk follows it.
    platform.delete::<VirtualMachine>("far").await;
    platform.gone::<VirtualMachine>("far").await;
    platform.create(&virtual_machine("next", &["far"])).await;
    let next = platform.until::<VirtualMachine>("next", "Ready", HasConditions::is_ready).await;
    assert_eq!(zone(next.status.unwrap().placement.as_ref()), Some("b"));

    let mut group = placement_group("web");
    group.spec.placement = Some(of(json!({"zone": "b"})));
    platform.create(&group).await;
    platform.create(&disk("member", IMAGE)).await;
    platform.create(&member("member", "web")).await;
    let vm = platform.until::<VirtualMachine>("member", "Ready", HasConditions::is_ready).await;
    assert_eq!(zone(vm.status.unwrap().placement.as_ref()), Some("b"), "that of its placement group");
    all_is_well(&platform).await;
}

#[tokio::test]
async fn what_is_apart_is_named_and_runs_when_it_is_not_any_more() {
    let platform = two_zones().await;
    let mut far = disk("hello", IMAGE);
    far.spec.placement = Some(of(json!({"zone": "b"})));
    platform.create(&far).await;
    let mut vm = virtual_machine("hello", &["hello"]);
    vm.spec.placement = Some(of(json!({"zone": "a"})));
    platform.create(&vm).await;
    let apart = |vm: &VirtualMachine| state(vm) == Some(State::ErrorUnschedulable);
    let found = platform.until::<VirtualMachine>("hello", "unschedulable", apart).await;
    let expected = "VirtualMachine \"hello\" is in zone \"a\" and Disk \"hello\" in zone \"b\"";
    assert!(found.message().contains(expected), "{}", found.message());
    let mut group = placement_group("web");
    group.spec.placement = Some(of(json!({"zone": "b"})));
    platform.create(&group).await;
    platform.create(&disk("near", IMAGE)).await;
    let mut member = member("near", "web");
    member.spec.placement = Some(of(json!({"zone": "a"})));
    platform.create(&member).await;
    let found = platform.until::<VirtualMachine>("near", "unschedulable", apart).await;
    let expected = "VirtualMachine \"near\" is in zone \"a\" and PlacementGroup \"web\" in zone \"b\"";
    assert!(found.message().contains(expected), "{}", found.message());

    platform.patch::<VirtualMachine>("near", json!({"spec": {"placementGroup": ""}})).await;
    platform.until::<VirtualMachine>("near", "Ready", HasConditions::is_ready).await;
    platform.create(&disk("other", IMAGE)).await;
    platform
        .patch::<VirtualMachine>("hello", json!({"spec": {"diskRefs": [{"name": "other", "bootFrom": true}]}}))
        .await;
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

/// A zone cannot come, go or change; a patch that changes nothing passes.
async fn keeps_its_zone<K: ApiOf>(platform: &Platform, without: &str, with: &str) {
    let zone = |zone: Value| json!({"spec": {"placement": {"zone": zone}}});
    for (name, change) in [
        (without, zone(json!("a"))),
        (with, zone(json!("b"))),
        (with, zone(Value::Null)),
        (with, json!({"spec": {"placement": null}})),
    ] {
        let (code, message) = refusal(platform.try_patch::<K>(name, change.clone()).await);
        assert!(
            code == 422 && message.contains("zone") && message.contains("cannot be changed"),
            "{change}: {message}"
        );
    }
    platform.patch::<K>(with, zone(json!("a"))).await;
}

#[tokio::test]
async fn zones_are_for_good_on_all_kinds() {
    let platform = Platform::start().await;
    let in_a = || Some(of(json!({"zone": "a"})));
    platform.create(&disk("without", IMAGE)).await;
    platform.create(&virtual_machine("without", &["without"])).await;
    platform.create(&placement_group("without")).await;
    let (mut disk, mut vm) = (disk("with", IMAGE), virtual_machine("with", &["with"]));
    let mut group = placement_group("with");
    (disk.spec.placement, vm.spec.placement, group.spec.placement) = (in_a(), in_a(), in_a());
    platform.create(&disk).await;
    platform.create(&vm).await;
    platform.create(&group).await;
    platform.until::<VirtualMachine>("with", "Ready", HasConditions::is_ready).await;
    keeps_its_zone::<Disk>(&platform, "without", "with").await;
    keeps_its_zone::<VirtualMachine>(&platform, "without", "with").await;
    keeps_its_zone::<PlacementGroup>(&platform, "without", "with").await;
    // As a client does that writes the same on every round.
    let disks = json!({"spec": {"diskRefs": [{"name": "with", "bootFrom": true}], "placement": {"zone": "a"}, "placementGroup": ""}});
    platform.patch::<VirtualMachine>("with", disks).await;
    all_is_well(&platform).await;
}
