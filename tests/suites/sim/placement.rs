//! Placement, and the messages when nothing fits.

use evroc_api::compute::{Disk, VirtualMachine, VirtualMachineStatusType as State};
use evroc_api::networking::Subnet;
use evroc_testkit::objects::{HasConditions, address, disk, state, virtual_machine, virtual_machine_of};
use evroc_testkit::{Fault, HostSize, IMAGE, Manner, Platform};
use serde_json::json;

use super::{all_is_well, machines_of, running_vm};

const SMALL: HostSize = HostSize { cpus: 2, memory_gb: 1, disk_gb: 50 };

#[tokio::test]
async fn without_memory_the_numbers_are_reported_and_it_starts_when_another_is_deleted() {
    let platform = Platform::builder().host("host-1", "a", SMALL).start().await;
    running_vm(&platform, "first").await;
    running_vm(&platform, "second").await;
    platform.create(&disk("third", IMAGE)).await;
    platform.create(&virtual_machine("third", &["third"])).await;
    let vm = platform
        .until::<VirtualMachine>("third", "unschedulable", |vm| state(vm) == Some(State::ErrorUnschedulable))
        .await;
    for part in ["test.xs", "0.5 GB", "host-1 has 0.0 GB of 1.0 GB free"] {
        assert!(vm.message().contains(part), "{part}: {}", vm.message());
    }
    assert_eq!(vm.reason(), "ErrorUnschedulable");
    platform.delete::<VirtualMachine>("first").await;
    platform.until::<VirtualMachine>("third", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_profile_too_large_for_every_host_is_reported() {
    let platform = Platform::start().await;
    platform.create(&disk("hello", IMAGE)).await;
    platform.create(&virtual_machine_of("a1a.2xl", "hello", &["hello"])).await;
    let vm = platform
        .until::<VirtualMachine>("hello", "unschedulable", |vm| state(vm) == Some(State::ErrorUnschedulable))
        .await;
    assert!(vm.message().contains("32 vCPUs") && vm.message().contains("host-1 has 4 CPUs"), "{}", vm.message());
    platform
        .patch::<VirtualMachine>(
            "hello",
            json!({"spec": {"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "test.xs"}}}),
        )
        .await;
    platform.until::<VirtualMachine>("hello", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn an_unknown_profile_and_an_unknown_zone_are_named() {
    let platform = Platform::start().await;
    platform.create(&disk("hello", IMAGE)).await;
    platform.create(&virtual_machine_of("huge.xxl", "hello", &["hello"])).await;
    let vm =
        platform.until::<VirtualMachine>("hello", "refused", |vm| state(vm) == Some(State::ProvisioningFailed)).await;
    for part in ["spec.vmVirtualResourcesRef.vmVirtualResourcesRefName", "\"huge.xxl\""] {
        assert!(vm.message().contains(part), "{part}: {}", vm.message());
    }
    let mut far = disk("far", IMAGE);
    far.spec.placement = Some(evroc_testkit::objects::of(json!({"zone": "z"})));
    platform.create(&far).await;
    let far = platform.until::<Disk>("far", "refused", |d| d.message().contains("spec.placement.zone")).await;
    assert!(far.message().contains("(a)") && far.message().contains("\"z\""), "{}", far.message());
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_vm_runs_where_its_disk_is() {
    let platform =
        Platform::builder().host("host-1", "a", SMALL).host("host-2", "b", HostSize::default()).start().await;
    let mut near = disk("near", IMAGE);
    near.spec.placement = Some(evroc_testkit::objects::of(json!({"zone": "a"})));
    platform.create(&near).await;
    platform.create(&virtual_machine("near", &["near"])).await;
    let vm = platform.until::<VirtualMachine>("near", "Ready", HasConditions::is_ready).await;
    assert_eq!(vm.status.unwrap().placement.unwrap().zone.as_deref(), Some("a"));
    assert_eq!(machines_of(&platform, "near").await[0].spec.host_name, "host-1");
    all_is_well(&platform).await;
}

#[tokio::test]
async fn disks_in_two_zones_cannot_be_one_vms() {
    let platform = Platform::builder()
        .host("host-1", "a", HostSize::default())
        .host("host-2", "b", HostSize::default())
        .start()
        .await;
    for (name, zone) in [("one", "a"), ("two", "b"), ("three", "a")] {
        let mut disk = disk(name, IMAGE);
        disk.spec.placement = Some(evroc_testkit::objects::of(json!({"zone": zone})));
        platform.create(&disk).await;
    }
    platform.create(&virtual_machine("hello", &["one", "two", "three"])).await;
    let vm = platform
        .until::<VirtualMachine>("hello", "unschedulable", |vm| state(vm) == Some(State::ErrorUnschedulable))
        .await;
    let expected = "Disk \"one\" is in zone \"a\" and Disk \"two\" in zone \"b\"";
    assert!(vm.message().contains(expected), "{}", vm.message());
    all_is_well(&platform).await;
}

#[tokio::test]
async fn the_last_address_goes_to_exactly_one() {
    let mut platform = Platform::start().await;
    // 10.0.0.0/29 as the group's network: .3 to .6 are for virtual machines. A subnet cannot be changed: another one takes its place.
    platform.stop_controllers();
    let mut subnet = platform.get::<Subnet>("default").await;
    platform.delete::<Subnet>("default").await;
    platform.gone::<Subnet>("default").await;
    subnet.spec.ipv4_cidr_block.block = "10.0.0.0/29".into();
    subnet.metadata.resource_version = None;
    platform.create(&subnet).await;
    platform.start_controllers();
    let names: Vec<String> = (0..6).map(|n| format!("vm-{n}")).collect();
    for name in &names {
        platform.create(&disk(name, IMAGE)).await;
    }
    let vms: Vec<VirtualMachine> = names.iter().map(|name| virtual_machine(name, &[name])).collect();
    futures::future::join_all(vms.iter().map(|vm| platform.create(vm))).await;
    let mut addresses = vec![];
    let mut without = vec![];
    for name in &names {
        let vm = platform
            .until::<VirtualMachine>(name, "running or without an address", |vm| {
                vm.is_ready() || vm.message().contains("no free address")
            })
            .await;
        match address(&vm) {
            Some(address) => addresses.push(address),
            None => without.push(name),
        }
    }
    addresses.sort();
    assert_eq!(addresses, ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    let vm = platform.get::<VirtualMachine>(without[0]).await;
    assert!(vm.message().contains("10.0.0.0/29") && vm.message().contains("delete"), "{}", vm.message());
    let holder = names.iter().find(|name| !without.contains(name)).unwrap();
    platform.delete::<VirtualMachine>(holder).await;
    platform.gone::<VirtualMachine>(holder).await;
    let ready = futures::future::select_ok(without.iter().map(|name| {
        Box::pin(async { Ok::<_, ()>(platform.until::<VirtualMachine>(name, "Ready", HasConditions::is_ready).await) })
    }));
    ready.await.unwrap();
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_host_that_is_not_ready_gets_nothing_new_and_keeps_what_it_has() {
    let platform = Platform::start().await;
    running_vm(&platform, "hello").await;
    platform.host().set(|b| b.is_unready = true);
    platform.create(&disk("late", IMAGE)).await;
    platform.create(&virtual_machine("late", &["late"])).await;
    let late = platform.until::<VirtualMachine>("late", "waiting", |vm| vm.message().contains("not ready")).await;
    assert_eq!(state(&late), Some(State::ErrorUnschedulable));
    assert!(platform.get::<VirtualMachine>("hello").await.is_ready());
    platform.host().set(|b| b.is_unready = false);
    platform.until::<VirtualMachine>("late", "Ready", HasConditions::is_ready).await;
    all_is_well(&platform).await;
    assert_eq!(platform.host().starts(), ["Machine/hello", "Machine/late"]);
}

#[tokio::test]
async fn the_last_memory_goes_to_exactly_one_and_a_vm_of_another_group_makes_room() {
    let platform = Platform::builder().host("host-1", "a", SMALL).start().await;
    let other: evroc_api::iam::ResourceGroup =
        evroc_testkit::objects::of(json!({"apiVersion": "iam.evroclabs.net/v1alpha1",
        "kind": "ResourceGroup", "metadata": {"name": "other"}, "spec": {"organization": "local"}}));
    platform.create(&other).await;
    platform.until::<evroc_api::iam::ResourceGroup>("other", "Ready", HasConditions::is_ready).await;
    let client = platform.client_as(evroc_iam::Identity::operator());
    let (disks, vms) = (
        kube::Api::<Disk>::namespaced(client.clone(), "other"),
        kube::Api::<VirtualMachine>::namespaced(client, "other"),
    );
    let create = kube::api::PostParams::default();
    disks.create(&create, &disk("theirs", IMAGE)).await.unwrap();
    vms.create(&create, &virtual_machine("theirs", &["theirs"])).await.unwrap();
    evroc_testkit::eventually("their VM runs", || async {
        vms.get("theirs").await.map_err(|e| e.to_string()).and_then(|vm| vm.is_ready().then_some(()).ok_or("no".into()))
    })
    .await;
    for name in ["one", "two", "three"] {
        platform.create(&disk(name, IMAGE)).await;
        platform.until::<Disk>(name, "Ready", HasConditions::is_ready).await;
    }
    let ours: Vec<VirtualMachine> = ["one", "two", "three"].iter().map(|name| virtual_machine(name, &[name])).collect();
    futures::future::join_all(ours.iter().map(|vm| platform.create(vm))).await;
    platform.at_rest().await;
    assert_eq!(platform.host().machines().len(), 2, "1 GB for machines of 0.5 GB");
    vms.delete("theirs", &kube::api::DeleteParams::default()).await.unwrap();
    evroc_testkit::eventually("another of ours runs", || async {
        let running = platform.host().machines();
        if running.len() == 2 && !running.contains(&"theirs".to_owned()) { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await;
    all_is_well(&platform).await;
}

#[tokio::test]
async fn a_larger_quota_wakes_what_waits_for_it() {
    use k8s_openapi::api::core::v1::ResourceQuota;
    let platform = Platform::start().await;
    let quota = |memory: &str, storage: &str| -> ResourceQuota {
        evroc_testkit::objects::of(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"},
            "spec": {"hard": {"requests.memory": memory, "requests.storage": storage}}}))
    };
    let client = platform.client_as(evroc_iam::Identity::operator());
    let quotas = kube::Api::<ResourceQuota>::namespaced(client, evroc_testkit::GROUP);
    quotas.create(&kube::api::PostParams::default(), &quota("100Mi", "1Ki")).await.unwrap();
    let set = async |memory: &str, storage: &str| {
        let change = json!({"spec": {"hard": {"requests.memory": memory, "requests.storage": storage}}});
        let merge = kube::api::Patch::Merge(change);
        quotas.patch("small", &kube::api::PatchParams::default(), &merge).await.unwrap();
        std::time::Instant::now()
    };
    // Without being woken they look again after half a minute.
    let woken = |since: std::time::Instant| assert!(since.elapsed().as_secs() < 20, "after {:?}", since.elapsed());
    // A disk takes nothing before a virtual machine runs with it: first the quota has no room for its bytes, then none for the memory.
    platform.create(&disk("boot", IMAGE)).await;
    platform.create(&virtual_machine("vm", &["boot"])).await;
    let refused = |what: &'static str| {
        move |vm: &VirtualMachine| {
            let is_named = ["ResourceQuota \"small\"", what].iter().all(|part| vm.message().contains(part));
            state(vm) == Some(State::ErrorUnschedulable) && is_named
        }
    };
    platform.until::<VirtualMachine>("vm", "a refusal", refused("requests.storage")).await;
    let since = set("100Mi", "100Gi").await;
    platform.until::<VirtualMachine>("vm", "a refusal of memory", refused("requests.memory")).await;
    woken(since);
    let since = set("8Gi", "100Gi").await;
    platform.until::<VirtualMachine>("vm", "Ready", HasConditions::is_ready).await;
    woken(since);
    all_is_well(&platform).await;
}

#[tokio::test]
async fn virtual_machines_that_start_together_never_take_more_than_there_is() {
    // The writes of the disks come first; the fault strikes among those of the virtual machines.
    let faults = [None, Some(Manner::Conflict), Some(Manner::AnswerLost), Some(Manner::KilledAfter)];
    for (fault, at) in faults.into_iter().zip([0, 70, 75, 80]) {
        let mut builder = Platform::builder().host("host-1", "a", SMALL).host("host-2", "a", SMALL);
        if let Some(manner) = fault {
            builder = builder.fault(Fault { at, manner });
        }
        let platform = builder.start().await;
        let names: Vec<String> = (0..10).map(|n| format!("vm-{n}")).collect();
        for name in &names {
            platform.create(&disk(name, IMAGE)).await;
        }
        for name in &names {
            platform.until::<Disk>(name, "Ready", HasConditions::is_ready).await;
        }
        let vms: Vec<VirtualMachine> = names.iter().map(|name| virtual_machine(name, &[name])).collect();
        futures::future::join_all(vms.iter().map(|vm| platform.create(vm))).await;
        let running = || platform.hosts().iter().map(|host| host.machines().len()).collect::<Vec<_>>();
        evroc_testkit::eventually("both hosts are full", || async {
            if running() == [2, 2] { Ok(()) } else { Err(format!("{:?}", running())) }
        })
        .await;
        all_is_well(&platform).await;
        assert_eq!(running(), [2, 2], "1 GB on each for machines of 0.5 GB; {fault:?}");
        let mut addresses = std::collections::BTreeSet::new();
        for name in &names {
            let vm = platform.get::<VirtualMachine>(name).await;
            let is_new = address(&vm).is_none_or(|address| addresses.insert(address));
            assert!(is_new, "{name} has the address of another; {fault:?}");
        }
    }
}
