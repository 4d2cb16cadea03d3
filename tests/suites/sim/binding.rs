//! Late binding: a disk gets its host with the first virtual machine that runs with it, together with the other disks of that.

use std::collections::BTreeSet;

use evroc_api::compute::{Disk, VirtualMachine, VirtualMachineStatusType as State};
use evroc_api::infra::Volume;
use evroc_testkit::objects::{HasConditions, blank_disk, disk, state, virtual_machine};
use evroc_testkit::{Fault, HostSize, IMAGE, Manner, Platform};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use super::{all_is_well, machines_of};

#[tokio::test]
async fn a_disk_is_ready_without_a_host_and_gets_one_with_its_vm() {
    let platform = Platform::start().await;
    platform.create(&disk("boot", IMAGE)).await;
    let unbound = platform.until::<Disk>("boot", "Ready", HasConditions::is_ready).await;
    assert!(unbound.message().contains("gets a host with the first one that runs with it"), "{}", unbound.message());
    assert_eq!(unbound.status.unwrap().disk_size.unwrap().to_string(), "2 GB");
    let mut stopped = virtual_machine("hello", &["boot"]);
    stopped.spec.running = false;
    platform.create(&stopped).await;
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    let used = |disk: &Disk| disk.status.as_ref().is_some_and(|it| it.disk_usage.iter().any(|it| it.vm == "hello"));
    platform.until::<Disk>("boot", "used", used).await;
    all_is_well(&platform).await;
    assert!(platform.api::<Volume>().get_opt("boot").await.unwrap().is_none(), "a stopped VM binds nothing");

    platform.host().set(|b| b.volumes_never_ready = true);
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": true}})).await;
    let waits = |vm: &VirtualMachine| state(vm) == Some(State::WaitingForVolumeBinding);
    let vm = platform.until::<VirtualMachine>("hello", "waiting", waits).await;
    assert!(vm.message().contains("Disk \"boot\""), "{}", vm.message());
    let volume = platform.until::<Volume>("boot", "made", |_| true).await;
    assert!(volume.spec.provisional && machines_of(&platform, "hello").await.is_empty());
    platform.host().set(|b| b.volumes_never_ready = false);
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
    assert!(!platform.get::<Volume>("boot").await.spec.provisional, "it has data now");
}

#[tokio::test]
async fn a_disk_that_was_never_used_goes_at_once() {
    let platform = Platform::start().await;
    platform.create(&disk("boot", IMAGE)).await;
    platform.until::<Disk>("boot", "Ready", HasConditions::is_ready).await;
    platform.host().set(|b| b.is_silent = true);
    platform.delete::<Disk>("boot").await;
    platform.gone::<Disk>("boot").await;
    platform.host().set(|b| b.is_silent = false);
    all_is_well(&platform).await;
}

/// The hosts of a virtual machine's volumes.
async fn hosts_of(platform: &Platform, disks: &[String]) -> BTreeSet<String> {
    let volumes = platform.api::<Volume>().list(&ListParams::default()).await.expect("a list").items;
    let own = volumes.into_iter().filter(|volume| disks.contains(&volume.name_any()));
    own.map(|volume| volume.spec.host_name).collect()
}

/// No host has promised more disk or memory than it has, and the disks of each virtual machine are on one host.
async fn in_order(platform: &Platform, vms: &[Vec<String>], size: HostSize) {
    for disks in vms {
        let hosts = hosts_of(platform, disks).await;
        assert!(hosts.len() < 2, "{disks:?} on {hosts:?}");
    }
    let volumes = platform.api::<Volume>().list(&ListParams::default()).await.expect("a list").items;
    for host in platform.hosts() {
        let own = volumes.iter().filter(|volume| volume.spec.host_name == host.name());
        let bytes: u64 = own.map(|volume| volume.spec.size_bytes).sum();
        assert!(bytes <= size.disk_gb << 30, "{bytes} bytes on {}", host.name());
    }
}

/// Ten virtual machines with two disks each at once, on three hosts that have room for six of them: those that fit run and the others hold
/// nothing. When one of those that run goes, another takes its place.
async fn ten_at_once(controllers: usize, fault: Option<Fault>) {
    // 2 GB from the image and 3 GB: two pairs and one more disk fit.
    const SIZE: HostSize = HostSize { cpus: 4, memory_gb: 16, disk_gb: 12 };
    let mut builder = Platform::builder().controllers(controllers);
    for name in ["host-1", "host-2", "host-3"] {
        builder = builder.host(name, "a", SIZE);
    }
    if let Some(fault) = fault {
        builder = builder.fault(fault);
    }
    let platform = builder.start().await;
    let vms: Vec<Vec<String>> = (0..10).map(|n| vec![format!("boot-{n}"), format!("data-{n}")]).collect();
    for disks in &vms {
        platform.create(&disk(&disks[0], IMAGE)).await;
        platform.create(&blank_disk(&disks[1], 3)).await;
    }
    let made: Vec<VirtualMachine> =
        vms.iter().enumerate().map(|(n, disks)| virtual_machine(&format!("vm-{n}"), &[&disks[0], &disks[1]])).collect();
    futures::future::join_all(made.iter().map(|vm| platform.create(vm))).await;
    let running = || platform.hosts().iter().flat_map(evroc_testkit::SimHost::machines).collect::<BTreeSet<_>>();
    evroc_testkit::eventually("six run", || async {
        if running().len() == 6 { Ok(()) } else { Err(format!("{fault:?}: {:?}", running())) }
    })
    .await;
    all_is_well(&platform).await;
    in_order(&platform, &vms, SIZE).await;
    let volumes = platform.api::<Volume>().list(&ListParams::default()).await.expect("a list").items;
    assert_eq!(volumes.len(), 12, "what does not fit holds nothing; {fault:?}");
    assert!(volumes.iter().all(|volume| !volume.spec.provisional), "{fault:?}");
    for vm in platform.api::<VirtualMachine>().list(&ListParams::default()).await.expect("a list").items {
        let expected = if running().contains(&vm.name_any()) { State::Running } else { State::ErrorUnschedulable };
        assert_eq!(state(&vm), Some(expected), "{}: {}", vm.name_any(), vm.message());
    }
    let goes = running().pop_first().expect("one that runs");
    let disks = &vms[goes[3..].parse::<usize>().expect("a number")];
    platform.delete::<VirtualMachine>(&goes).await;
    platform.delete::<Disk>(&disks[0]).await;
    platform.delete::<Disk>(&disks[1]).await;
    evroc_testkit::eventually("six run again", || async {
        let now = running();
        if now.len() == 6 && !now.contains(&goes) { Ok(()) } else { Err(format!("{fault:?}: {now:?}")) }
    })
    .await;
    all_is_well(&platform).await;
    in_order(&platform, &vms, SIZE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_at_once_on_nearly_full_hosts_none_sticks() {
    ten_at_once(1, None).await;
    // Among the writes of the virtual machines; those of the disks come before.
    for (at, manner) in
        [(62, Manner::Conflict), (71, Manner::AnswerLost), (80, Manner::KilledAfter), (90, Manner::KilledBefore)]
    {
        ten_at_once(1, Some(Fault { at, manner })).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_at_once_none_sticks_with_two_schedulers_that_race() {
    ten_at_once(2, None).await;
    ten_at_once(2, Some(Fault { at: 90, manner: Manner::KilledAfter })).await;
}

/// A virtual machine with two disks, the first of which was bound to a host that another one filled: a lost race, after the fact.
#[tokio::test]
async fn a_volume_that_was_never_used_leaves_a_full_host() {
    const SIZE: HostSize = HostSize { cpus: 4, memory_gb: 4, disk_gb: 6 };
    let mut platform = Platform::builder()
        .host("host-1", "a", SIZE)
        .host("host-2", "a", HostSize { memory_gb: 3, ..SIZE })
        .start()
        .await;
    platform.create(&disk("boot", IMAGE)).await;
    platform.create(&blank_disk("data", 3)).await;
    platform.until::<Disk>("data", "Ready", HasConditions::is_ready).await;
    platform.hosts()[0].set(|b| b.volumes_never_ready = true);
    platform.create(&virtual_machine("hello", &["boot", "data"])).await;
    let first = platform.until::<Volume>("boot", "made", |_| true).await;
    assert_eq!(first.spec.host_name, "host-1", "where most memory is left");
    platform.until::<Volume>("data", "made", |_| true).await;
    platform.stop_controllers();
    // As if the second had been refused and another one had come: 2 of 6 GB are taken, 5 GB are wanted by a stranger.
    platform.hosts()[0].set(|b| b.volumes_never_ready = false);
    platform.delete::<Volume>("data").await;
    platform.gone::<Volume>("data").await;
    let mut stranger = first.clone();
    stranger.metadata = kube::api::ObjectMeta { name: Some("stranger".into()), ..Default::default() };
    stranger.spec.size_bytes = 3 << 30;
    platform.create(&stranger).await;
    platform.start_controllers();
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    assert_eq!(machines_of(&platform, "hello").await[0].spec.host_name, "host-2");
    let boot = platform.get::<Volume>("boot").await;
    assert!(boot.uid() != first.uid() && boot.spec.host_name == "host-2");
    platform.delete::<Volume>("stranger").await;
    platform.gone::<Volume>("stranger").await;
    all_is_well(&platform).await;
}

/// A volume with data never moves, however full its host is.
#[tokio::test]
async fn a_volume_that_was_used_stays() {
    const SIZE: HostSize = HostSize { cpus: 4, memory_gb: 1, disk_gb: 50 };
    let platform = Platform::builder().host("host-1", "a", SIZE).host("host-2", "a", SIZE).start().await;
    super::running_vm(&platform, "hello").await;
    let before = platform.get::<Volume>("hello").await;
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": false}})).await;
    platform.until::<VirtualMachine>("hello", "Stopped", |vm| state(vm) == Some(State::Stopped)).await;
    // Fill its host, and then the other.
    for name in ["a", "b", "c", "d"] {
        super::running_vm(&platform, name).await;
    }
    platform.patch::<VirtualMachine>("hello", json!({"spec": {"running": true}})).await;
    let full = |vm: &VirtualMachine| state(vm) == Some(State::ErrorUnschedulable);
    let vm = platform.until::<VirtualMachine>("hello", "unschedulable", full).await;
    assert!(vm.message().contains("has 0.0 GB of 1.0 GB free"), "{}", vm.message());
    all_is_well(&platform).await;
    assert_eq!(platform.get::<Volume>("hello").await.uid(), before.uid());
    let (code, message) =
        super::refusal(platform.try_patch::<Volume>("hello", json!({"spec": {"provisional": true}})).await);
    assert!(code == 422 && message.contains("spec.provisional"), "{message}");
}
