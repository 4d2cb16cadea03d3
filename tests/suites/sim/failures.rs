//! Hosts that fall silent and controllers that are away.

use evroc_api::compute::{Disk, VirtualMachine, VirtualMachineStatusType as State};
use evroc_testkit::objects::{HasConditions, disk, state, virtual_machine};
use evroc_testkit::{IMAGE, Platform};
use serde_json::json;

use super::{all_is_well, running_vm};

#[tokio::test]
async fn what_was_asked_while_the_controllers_were_away_is_done_later() {
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
    platform.host().set(|b| b.machines_never_run = true);
    platform.create(&disk("hello", IMAGE)).await;
    platform.create(&virtual_machine("hello", &["hello"])).await;
    platform.until::<VirtualMachine>("hello", "Starting", |vm| state(vm) == Some(State::Starting)).await;
    platform.delete::<VirtualMachine>("hello").await;
    platform.gone::<VirtualMachine>("hello").await;
    platform.delete::<Disk>("hello").await;
    platform.gone::<Disk>("hello").await;
    all_is_well(&platform).await;
    assert_eq!(platform.host().starts(), Vec::<String>::new());
}
