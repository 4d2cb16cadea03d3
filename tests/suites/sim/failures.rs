//! Hosts that fall silent and controllers that are away.

use evroc_api::compute::{Disk, VirtualMachine, VirtualMachineStatusType as State};
use evroc_api::conditions;
use evroc_api::infra::{Host, Volume};
use evroc_api::run::Service;
use evroc_testkit::objects::{HasConditions, disk, service, state, virtual_machine};
use evroc_testkit::{HostSize, IMAGE, Platform};
use serde_json::json;

use super::{all_is_well, machines_of, running_vm};

#[tokio::test]
async fn changes_while_the_controllers_were_away_are_acted_on_later() {
    let mut platform = Platform::start().await;
    running_vm(&platform, "goes").await;
    running_vm(&platform, "stops").await;
    platform.stop_controllers();
    platform.create(&disk("comes", IMAGE)).await;
    platform.create(&virtual_machine("comes", &["comes"])).await;
    platform.delete::<VirtualMachine>("goes").await;
    platform.delete::<Disk>("goes").await;
    platform.patch::<VirtualMachine>("stops", json!({"spec": {"running": false}})).await;
    assert_eq!(platform.host().machines().len(), 2, "guests do not need controllers");
    platform.start_controllers();
    platform.until::<VirtualMachine>("comes", "Ready", HasConditions::is_ready).await;
    platform.until::<VirtualMachine>("stops", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    platform.gone::<VirtualMachine>("goes").await;
    platform.gone::<Disk>("goes").await;
    all_is_well(&platform).await;
    assert_eq!(platform.host().starts(), ["Machine/goes", "Machine/stops", "Machine/comes"]);
}

#[tokio::test]
async fn a_silent_host_keeps_its_guests_and_gets_its_work_when_it_speaks_again() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.host().set(|b| b.is_silent = true);
    platform.create(&disk("late", IMAGE)).await;
    platform.create(&virtual_machine("late", &["late"])).await;
    let vm = platform
        .until::<VirtualMachine>("late", "waiting", |vm| state(vm) == Some(State::WaitingForVolumeBinding))
        .await;
    assert!(vm.message().contains("Disk \"late\""), "{}", vm.message());
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("hello", "Stopping", |vm| state(vm) == Some(State::Stopping)).await;
    assert_eq!(platform.host().machines(), ["hello"]);
    platform.host().set(|b| b.is_silent = false);
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    platform.until::<VirtualMachine>("late", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_vm_deleted_before_it_ran_leaves_nothing() {
    let platform = Platform::start().await;
    platform.host().set(|b| b.probe_never_ends = true);
    platform.create(&disk("hello", IMAGE)).await;
    platform.create(&virtual_machine("hello", &["hello"])).await;
    let waits = |vm: &VirtualMachine| vm.message().contains("a probe guest is being booted");
    let vm = platform.until::<VirtualMachine>("hello", "waiting for the probe", waits).await;
    assert_eq!(state(&vm), Some(State::Provisioning));
    platform.delete::<VirtualMachine>("hello").await;
    platform.gone::<VirtualMachine>("hello").await;
    platform.delete::<Disk>("hello").await;
    platform.gone::<Disk>("hello").await;
    all_is_well(&platform).await;
    assert_eq!(platform.host().starts(), Vec::<String>::new());
}

#[tokio::test]
async fn of_two_hosts_one_is_dead() {
    let platform = Platform::builder()
        .host("host-1", "a", HostSize { memory_gb: 64, ..HostSize::default() })
        .host("host-2", "a", HostSize::default())
        .scale_to_zero_after(std::time::Duration::from_secs(3600))
        .start()
        .await;
    platform.images().push("demo/hello:v1", "65532");
    running_vm(&platform, "stays").await;
    platform.create(&service("web", "demo/hello:v1")).await;
    platform.until::<Service>("web", "Ready", HasConditions::is_ready).await;
    assert_eq!(platform.hosts()[0].replicas(), ["web-00001-0"], "where most memory is left");

    platform.hosts()[0].set(|b| b.is_unready = true);
    platform.until::<Host>("host-1", "not ready", |host| !is_ready(host)).await;
    platform.hosts()[0].set(|b| b.is_silent = true);
    // New machines go to the other, the service is healed on it, and the guest is not started twice.
    running_vm(&platform, "late").await;
    assert_eq!(machines_of(&platform, "late").await[0].spec.host_name, "host-2");
    evroc_testkit::eventually("the container runs on the other host", || async {
        let running = platform.hosts()[1].replicas();
        if running == ["web-00001-1"] { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await;
    assert_eq!(machines_of(&platform, "stays").await.len(), 1);
    assert_eq!(platform.hosts()[1].machines(), ["late"]);

    platform.hosts()[0].set(|b| {
        b.is_silent = false;
        b.is_unready = false;
    });
    platform.until::<Host>("host-1", "ready again", is_ready).await;
    all_is_well(&platform).await;
    assert!(platform.get::<VirtualMachine>("stays").await.is_ready());
    let containers = platform.hosts().iter().map(|host| host.replicas().len()).sum::<usize>();
    assert_eq!(containers, 1, "one too many was stopped");
}

#[tokio::test]
async fn a_host_object_that_is_deleted_in_mid_plan_stops_nothing() {
    let platform = Platform::builder()
        .host("host-1", "a", HostSize { disk_gb: 400, memory_gb: 64, ..HostSize::default() })
        .host("host-2", "a", HostSize::default())
        .start()
        .await;
    platform.hosts()[0].set(|b| b.volumes_never_ready = true);
    platform.create(&disk("hello", IMAGE)).await;
    platform.create(&virtual_machine("hello", &["hello"])).await;
    platform.until::<VirtualMachine>("hello", "waiting", |vm| state(vm) == Some(State::WaitingForVolumeBinding)).await;
    let volume = platform.until::<Volume>("hello", "bound", |_| true).await;
    assert_eq!(volume.spec.host_name, "host-1");
    // The volume exists: the VM waits for the host, and is not placed on the other.
    platform.hosts()[0].set(|b| b.is_silent = true);
    platform.delete::<Host>("host-1").await;
    platform.gone::<Host>("host-1").await;
    running_vm(&platform, "other").await;
    assert_eq!(machines_of(&platform, "other").await[0].spec.host_name, "host-2");
    assert!(machines_of(&platform, "hello").await.is_empty());
    platform.hosts()[0].set(|b| {
        b.is_silent = false;
        b.volumes_never_ready = false;
    });
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    assert_eq!(machines_of(&platform, "hello").await[0].spec.host_name, "host-1");
    all_is_well(&platform).await;
}

fn is_ready(host: &Host) -> bool {
    host.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, conditions::READY))
}
