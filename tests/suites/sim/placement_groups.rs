//! Placement groups: each member on another host, five at most.

use std::collections::BTreeSet;

use evroc_api::compute::{PlacementGroup, VirtualMachine, VirtualMachineStatusType as State};
use evroc_api::infra::Machine;
use evroc_testkit::objects::{HasConditions, disk, member, placement_group, state};
use evroc_testkit::{Fault, HostSize, IMAGE, Manner, Platform};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use super::{all_is_well, machines_of, refusal};

async fn on_hosts(count: usize) -> Platform {
    let mut builder = Platform::builder();
    for n in 1..=count {
        builder = builder.host(&format!("host-{n}"), "a", HostSize::default());
    }
    builder.start().await
}

fn is_unschedulable(vm: &VirtualMachine) -> bool {
    state(vm) == Some(State::ErrorUnschedulable)
}

async fn join(platform: &Platform, name: &str) {
    platform.create(&disk(name, IMAGE)).await;
    platform.create(&member(name, "web")).await;
}

#[tokio::test]
async fn members_are_apart_and_one_too_many_waits_for_a_host() {
    let platform = on_hosts(2).await;
    platform.create(&placement_group("web")).await;
    for name in ["one", "two"] {
        join(&platform, name).await;
        platform.until::<VirtualMachine>(name, "Ready", HasConditions::is_ready).await;
    }
    assert_eq!(platform.hosts().iter().map(|host| host.machines().len()).collect::<Vec<_>>(), [1, 1]);
    join(&platform, "three").await;
    let waits = platform.until::<VirtualMachine>("three", "unschedulable", is_unschedulable).await;
    let expected = "2 hosts: 2 already run a VM of placement group \"web\"";
    assert!(waits.message().contains(expected), "{}", waits.message());
    let shows = |group: &PlacementGroup| {
        let members = group.status.as_ref().map(|status| status.virtual_machines.clone()).unwrap_or_default();
        let shown: Vec<_> = members.iter().map(|it| (it.name.as_str(), it.scheduled == Some(true))).collect();
        shown == [("one", true), ("three", false), ("two", true)]
            && members.iter().all(|it| !it.message.as_deref().unwrap_or_default().contains("host-"))
    };
    platform.until::<PlacementGroup>("web", "with its members", shows).await;
    // A stranger to the group shares a host; a member that goes makes room.
    super::running_vm(&platform, "stranger").await;
    platform.delete::<VirtualMachine>("one").await;
    platform.until::<VirtualMachine>("three", "Ready", HasConditions::is_ready).await;
    // One that is stopped has no host; it waits when it starts again.
    platform.patch::<VirtualMachine>("two", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("two", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    join(&platform, "four").await;
    platform.until::<VirtualMachine>("four", "Ready", HasConditions::is_ready).await;
    platform.patch::<VirtualMachine>("two", json!({"spec": {"running": true}})).await;
    platform.until::<VirtualMachine>("two", "unschedulable", is_unschedulable).await;
    // Leaving the group helps as well: a virtual machine that has no host can be changed.
    platform.patch::<VirtualMachine>("two", json!({"spec": {"placementGroup": ""}})).await;
    platform.until::<VirtualMachine>("two", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn five_at_most_whether_the_group_exists_or_not() {
    let platform = on_hosts(1).await;
    let mut stopped = vec![];
    for n in 0..5 {
        let mut vm = member(&format!("vm-{n}"), "web");
        vm.spec.running = n == 0;
        stopped.push(vm);
    }
    platform.create(&disk("vm-0", IMAGE)).await;
    futures::future::join_all(stopped.iter().map(|vm| platform.create(vm))).await;
    let waits = platform.until::<VirtualMachine>("vm-0", "unschedulable", is_unschedulable).await;
    let expected = "spec.placementGroup: expected the name of a PlacementGroup in this resource group, found \"web\"";
    assert!(waits.message().contains(expected), "{}", waits.message());
    let is_refused = async || {
        let (code, message) = refusal(platform.try_create(&member("sixth", "web")).await);
        assert_eq!(code, 422, "{message}");
        let expected = "spec.placementGroup: Forbidden: expected at most 5 VMs in placement group \"web\"";
        assert!(message.contains(expected), "{message}");
    };
    is_refused().await;
    platform.create(&placement_group("web")).await;
    platform.until::<VirtualMachine>("vm-0", "Ready", HasConditions::is_ready).await;
    is_refused().await;
    let (code, _) =
        refusal(platform.try_patch::<VirtualMachine>("vm-1", json!({"spec": {"vmVirtualResourcesRef": null}})).await);
    assert_eq!(code, 422);
    // Those that are being deleted count.
    platform.host().set(|b| b.machines_never_end = true);
    platform.delete::<VirtualMachine>("vm-0").await;
    is_refused().await;
    platform.host().set(|b| b.machines_never_end = false);
    platform.gone::<VirtualMachine>("vm-0").await;
    platform.create(&member("sixth", "web")).await;
    is_refused_for(&platform, "seventh").await;
    // A member that leaves makes room, and cannot come back then.
    platform.patch::<VirtualMachine>("vm-1", json!({"spec": {"placementGroup": ""}})).await;
    platform.create(&member("seventh", "web")).await;
    let (code, message) =
        refusal(platform.try_patch::<VirtualMachine>("vm-1", json!({"spec": {"placementGroup": "web"}})).await);
    assert!(code == 422 && message.contains("expected at most 5"), "{message}");
    all_is_well(&platform).await;
}

async fn is_refused_for(platform: &Platform, name: &str) {
    assert_eq!(refusal(platform.try_create(&member(name, "web")).await).0, 422);
}

#[tokio::test]
async fn a_running_vm_stays_in_its_group_and_a_group_in_use_waits() {
    let platform = on_hosts(1).await;
    platform.create(&placement_group("web")).await;
    join(&platform, "hello").await;
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    for group in ["", "other"] {
        let change = json!({"spec": {"placementGroup": group}});
        let (code, message) = refusal(platform.try_patch::<VirtualMachine>("hello", change).await);
        assert!(code == 422 && message.contains("spec.placementGroup"), "{message}");
    }
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"placementGroup": "web"}})).await;
    assert_eq!(machines_of(&platform, "hello").await[0].spec.placement_group.as_deref(), Some("web"));
    platform.delete::<PlacementGroup>("web").await;
    let waits = platform.until::<PlacementGroup>("web", "in use", |group| group.reason() == "InUse").await;
    assert!(waits.message().contains("VirtualMachine \"hello\""), "{}", waits.message());
    platform.delete::<VirtualMachine>("hello").await;
    platform.gone::<PlacementGroup>("web").await;
    all_is_well(&platform).await;
}

/// The machines of a group, by host: never two on one.
async fn spread(platform: &Platform) -> Result<(), String> {
    let machines = platform.api::<Machine>().list(&ListParams::default()).await.map_err(|error| error.to_string())?;
    let of_group = machines.items.iter().filter(|machine| machine.spec.placement_group.is_some());
    let mut hosts = BTreeSet::new();
    for machine in of_group {
        if !hosts.insert(machine.spec.host_name.clone()) {
            return Err(format!("{} shares {}", machine.name_any(), machine.spec.host_name));
        }
    }
    Ok(())
}

/// Five members at once on four hosts, with one or two sets of controllers: four run, apart, and when one goes the fifth does.
async fn five_at_once(controllers: usize, fault: Option<Fault>) {
    let mut builder = Platform::builder().controllers(controllers);
    for n in 1..=4 {
        builder = builder.host(&format!("host-{n}"), "a", HostSize::default());
    }
    if let Some(fault) = fault {
        builder = builder.fault(fault);
    }
    let platform = builder.start().await;
    platform.create(&placement_group("web")).await;
    let names: Vec<String> = (0..5).map(|n| format!("vm-{n}")).collect();
    for name in &names {
        platform.create(&disk(name, IMAGE)).await;
    }
    let members: Vec<VirtualMachine> = names.iter().map(|name| member(name, "web")).collect();
    futures::future::join_all(members.iter().map(|vm| platform.create(vm))).await;
    let running = || platform.hosts().iter().map(|host| host.machines().len()).collect::<Vec<_>>();
    evroc_testkit::eventually("each host runs one", || async {
        spread(&platform).await.unwrap_or_else(|shared| panic!("{fault:?}: {shared}"));
        if running() == [1, 1, 1, 1] { Ok(()) } else { Err(format!("{fault:?}: {:?}", running())) }
    })
    .await;
    all_is_well(&platform).await;
    let goes = platform.hosts()[2].machines().pop().expect("one that runs");
    platform.delete::<VirtualMachine>(&goes).await;
    platform.gone::<VirtualMachine>(&goes).await;
    evroc_testkit::eventually("each host runs one again", || async {
        spread(&platform).await.unwrap_or_else(|shared| panic!("{fault:?}: {shared}"));
        if running() == [1, 1, 1, 1] { Ok(()) } else { Err(format!("{fault:?}: {:?}", running())) }
    })
    .await;
    all_is_well(&platform).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_start_together_never_share_a_host() {
    five_at_once(1, None).await;
    five_at_once(2, None).await;
    for (at, manner) in
        [(40, Manner::AnswerLost), (45, Manner::KilledAfter), (50, Manner::KilledBefore), (55, Manner::Conflict)]
    {
        five_at_once(2, Some(Fault { at, manner })).await;
    }
}
