//! Tables: given these observations, these steps and this status.

use std::collections::HashSet;
use std::time::Duration;

use evroc_api::compute::VirtualMachineStatusType as State;
use evroc_api::infra::{MachineSpec, VolumeFormat};
use evroc_placement::{HostFacts, Room};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::observe::{Observed, ObservedDisk};
use super::plan::{Step, plan};
use super::status::status;

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "because", "lastTransitionTime": "1970-01-01T00:00:00Z"})
}

/// A virtual machine that could be started at once.
fn startable() -> Observed {
    let meta = json!({"name": "vm", "namespace": "demo", "uid": "12345678-9abc-4def-8000-000000000000", "finalizers": [evroc_api::COMPUTE_FINALIZER]});
    Observed {
        vm: of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "VirtualMachine", "metadata": meta,
            "spec": {"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "test.xs"}, "diskRefs": [{"name": "data"}, {"name": "boot", "bootFrom": true}],
                "osSettings": {"ssh": {"authorizedKeys": [{"value": "ssh-ed25519 A"}]}}},
            "status": {"networking": {"privateIPv4Address": "10.0.0.3"}}})),
        profile: Some(of(
            json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "VMVirtualResources", "metadata": {"name": "test.xs"},
            "spec": {"vCPUs": 1, "memory": {"amount": 512, "unit": "MB"}, "processorArchitecture": "amd64"}}),
        )),
        disks: ["data", "boot"].map(disk).into(),
        machines: vec![],
        zone: None,
        hosts: vec![HostFacts {
            name: "h".into(),
            zone: Some("a".into()),
            is_open: true,
            room: Some(Room { cpus: 2, memory_bytes: 1 << 30, disk_bytes: 1 << 40 }),
            ..HostFacts::default()
        }],
        vpc: Some(of(
            json!({"apiVersion": "networking.evroclabs.net/v1alpha1", "kind": "VirtualPrivateCloud", "metadata": {"name": "default", "uid": "vpc-uid"}, "spec": {}}),
        )),
        subnet: Some(of(
            json!({"apiVersion": "networking.evroclabs.net/v1alpha1", "kind": "Subnet", "metadata": {"name": "default"},
            "spec": {"vpcRef": {"name": "default"}, "ipv4CidrBlock": {"block": "10.0.0.0/24"}}}),
        )),
        taken_addresses: HashSet::new(),
        refused: None,
        group: None,
        group_hosts: vec![],
        first_zone: Some("a".into()),
    }
}

fn disk(name: &str) -> ObservedDisk {
    ObservedDisk {
        name: name.into(),
        disk: Some(of(
            json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "Disk", "metadata": {"name": name, "uid": format!("disk-{name}")},
            "spec": {"diskImage": {"diskImageRef": {"name": "tiny.1-0.1"}}}, "status": {"conditions": [condition("Ready", "True", "Ready")]}}),
        )),
        volume: Some(of(
            json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Volume", "metadata": {"name": name, "uid": format!("volume-{name}")},
            "spec": {"hostName": "h", "sizeBytes": 1, "imageSha256": "00"}, "status": {"conditions": [condition("Ready", "True", "Ready")]}}),
        )),
        image: Some(of(
            json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "DiskImage", "metadata": {"name": "tiny.1-0.1"},
            "spec": {"defaultSize": {"amount": 2, "unit": "GB"}, "minimumSizeBytes": 1, "osArch": "amd64", "osImage": "tiny",
                "osVersion": "1", "version": "1", "sha256": "00"}}),
        )),
        zone: Some("a".into()),
        refused: None,
    }
}

fn with_machine(mut observed: Observed, phase: &str) -> Observed {
    let [Step::CreateMachine(spec)] = &plan(&observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
    observed.machines = vec![of(
        json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Machine", "metadata": {"name": "vm-1", "uid": "m"},
        "spec": serde_json::to_value(spec).unwrap(), "status": {"phase": phase, "conditions": [condition("Ready", "True", "Ready")]}}),
    )];
    observed
}

fn deleted(mut observed: Observed) -> Observed {
    observed.vm.metadata.deletion_timestamp = Some(of(json!("1970-01-01T00:00:00Z")));
    observed
}

fn state(observed: &Observed) -> State {
    status(observed, Timestamp::UNIX_EPOCH).virtual_machine_status.unwrap()
}

#[test]
fn the_machine_has_all_that_the_host_needs() {
    let [Step::CreateMachine(spec)] = &plan(&startable(), Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
    assert_eq!((spec.host_name.as_str(), spec.vcpus, spec.memory_bytes), ("h", 1, 512 << 20));
    assert_eq!(
        spec.volumes.iter().map(|v| (v.name.as_str(), v.boot)).collect::<Vec<_>>(),
        [("boot", true), ("data", false)]
    );
    assert_eq!(
        (spec.network.address.as_str(), spec.network.gateway.as_str(), spec.network.mac.as_str()),
        ("10.0.0.3", "10.0.0.1", "0a:12:34:56:78:9a")
    );
    let boot = &spec.volumes[0];
    assert_eq!(
        (boot.uid.as_deref(), boot.disk_uid.as_deref(), boot.format, boot.size_bytes, boot.image_sha256.as_deref()),
        (Some("volume-boot"), Some("disk-boot"), Some(VolumeFormat::Qcow2), Some(1), Some("00")),
        "the host reads nothing else to run it"
    );
    assert_eq!((spec.epoch, spec.virtual_machine.as_deref()), (1, Some("vm")));
    assert_eq!(
        (spec.hostname.as_str(), spec.authorized_keys.as_slice()),
        ("vm", ["ssh-ed25519 A".to_owned()].as_slice())
    );
}

#[test]
fn an_address_is_given_before_the_machine_is_made() {
    let mut observed = startable();
    observed.vm.status = None;
    observed.taken_addresses = ["10.0.0.3", "10.0.0.5"].map(|a| a.parse().unwrap()).into();
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![Step::AssignAddress("10.0.0.4".parse().unwrap())]);
    observed.taken_addresses = (3..=254).map(|n| std::net::Ipv4Addr::new(10, 0, 0, n)).collect();
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![]);
    assert_eq!(state(&observed), State::ErrorUnschedulable);
}

#[test]
fn what_keeps_a_machine_from_being_made() {
    let change = |change: &dyn Fn(&mut Observed)| {
        let mut observed = startable();
        change(&mut observed);
        observed
    };
    let cases: [(&str, Observed, State, &str); 17] = [
        ("no profile", change(&|o| o.profile = None), State::ProvisioningFailed, "spec.vmVirtualResourcesRef"),
        ("no disk", change(&|o| o.disks[0].disk = None), State::ErrorPvcNotFound, "spec.diskRefs[0].name"),
        (
            "disk on its way",
            change(&|o| {
                o.disks[0].disk.as_mut().unwrap().status = None;
                o.disks[0].volume = None;
            }),
            State::WaitingForVolumeBinding,
            "data",
        ),
        (
            "blank boot disk",
            change(&|o| o.disks[1].disk.as_mut().unwrap().spec.disk_image = None),
            State::ProvisioningFailed,
            "spec.diskRefs[1].name: expected a boot disk",
        ),
        (
            "broken disk",
            change(&|o| {
                o.disks[1].disk.as_mut().unwrap().status =
                    Some(of(json!({"conditions": [condition("Ready", "False", "DiskTooSmall")]})))
            }),
            State::DataVolumeError,
            "because",
        ),
        ("no network", change(&|o| o.vpc = None), State::Provisioning, "VPC"),
        (
            "no memory",
            change(&|o| o.profile.as_mut().unwrap().spec.memory.amount = 4096),
            State::ErrorUnschedulable,
            "4.0 GB",
        ),
        ("no host", change(&|o| o.hosts.clear()), State::ErrorUnschedulable, "host"),
        (
            "its disk is on another host",
            change(&|o| o.hosts[0].name = "other".into()),
            State::ErrorUnschedulable,
            "is on host h, which is not ready",
        ),
        (
            "disks on two hosts",
            change(&|o| o.disks[0].volume.as_mut().unwrap().spec.host_name = "other".into()),
            State::ErrorUnschedulable,
            "\"data\" on other, \"boot\" on h",
        ),
        (
            "volume on its way",
            change(&|o| o.disks[0].volume.as_mut().unwrap().status = None),
            State::WaitingForVolumeBinding,
            "waits for Disk \"data\": the disk is being made on host h",
        ),
        (
            "volume that is being removed to be made elsewhere",
            change(&|o| {
                let volume = o.disks[0].volume.as_mut().unwrap();
                volume.metadata.deletion_timestamp = Some(of(json!("1970-01-01T00:00:00Z")));
            }),
            State::WaitingForVolumeBinding,
            "waits for Disk \"data\", which is still empty",
        ),
        (
            "no such placement group",
            change(&|o| o.vm.spec.placement_group = Some("web".into())),
            State::ErrorUnschedulable,
            "spec.placementGroup: expected the name of a PlacementGroup in this resource group, found \"web\"",
        ),
        (
            "placement group in another zone",
            change(&|o| {
                o.vm.spec.placement_group = Some("web".into());
                o.group = Some(group("b"));
            }),
            State::ErrorUnschedulable,
            "Disk \"data\" is in zone \"a\" and PlacementGroup \"web\" in zone \"b\"",
        ),
        (
            "disk in another zone",
            change(&|o| {
                o.vm.spec.placement = Some(of(json!({"zone": "b"})));
                o.disks[0].zone = None;
            }),
            State::ErrorUnschedulable,
            "VirtualMachine \"vm\" is in zone \"b\" and Disk \"boot\" in zone \"a\"",
        ),
        (
            "no host without another member",
            change(&|o| {
                o.vm.spec.placement_group = Some("web".into());
                o.group = Some(group("a"));
                o.group_hosts = vec!["h".into()];
            }),
            State::ErrorUnschedulable,
            "h already runs a VM of placement group \"web\"",
        ),
        (
            "volume that was refused",
            change(&|o| {
                o.disks[0].volume = None;
                o.disks[0].refused = Some("metadata.labels: too long".into());
            }),
            State::DataVolumeError,
            "Disk \"data\": the disk's volume was refused: metadata.labels",
        ),
    ];
    for (name, observed, expected, part) in cases {
        assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![], "{name}");
        assert_eq!(state(&observed), expected, "{name}");
        let status = status(&observed, Timestamp::UNIX_EPOCH);
        assert!(status.conditions[0].message.contains(part), "{name}: {}", status.conditions[0].message);
    }
}

fn group(zone: &str) -> evroc_api::compute::PlacementGroup {
    of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "PlacementGroup", "metadata": {"name": "web"},
        "spec": {"placement": {"zone": zone}}}))
}

/// A virtual machine of which nothing has a host yet, with two hosts of 4 GB of disk.
fn unbound() -> Observed {
    let mut observed = startable();
    for disk in &mut observed.disks {
        (disk.volume, disk.zone) = (None, None);
    }
    observed.hosts[0].room.as_mut().unwrap().disk_bytes = 4 << 30;
    let mut other = observed.hosts[0].clone();
    other.name = "i".into();
    observed.hosts.push(other);
    observed
}

/// Gives a disk a volume that was never used.
fn bind(observed: &mut Observed, index: usize, host: &str) {
    let mut volume = disk(&observed.disks[index].name).volume.unwrap();
    (volume.spec.host_name, volume.spec.provisional) = (host.into(), true);
    volume.spec.size_bytes = 2 << 30;
    let facts = observed.hosts.iter_mut().find(|facts| facts.name == host).unwrap();
    facts.promised.disk_bytes += volume.spec.size_bytes;
    observed.disks[index].volume = Some(volume);
}

#[test]
fn all_disks_get_one_host_where_everything_fits() {
    let bound = |observed: &Observed| match &plan(observed, Timestamp::UNIX_EPOCH)[..] {
        [Step::Bind(disks)] => {
            assert_eq!(state(observed), State::WaitingForVolumeBinding);
            disks.iter().map(|(disk, spec)| format!("{disk} on {}", spec.host_name)).collect::<Vec<_>>().join(", ")
        }
        other => panic!("{other:?}"),
    };
    let mut observed = unbound();
    assert_eq!(bound(&observed), "data on h, boot on h");
    // The disks fit together on one host only, each of them on both.
    observed.hosts[0].promised.disk_bytes = 1 << 30;
    assert_eq!(bound(&observed), "data on i, boot on i");
    // The machine as well.
    let mut observed = unbound();
    observed.hosts[0].promised.memory_bytes = 1 << 30;
    assert_eq!(bound(&observed), "data on i, boot on i");
    // A volume that has data is followed, also to a host with less left.
    let mut observed = unbound();
    bind(&mut observed, 1, "i");
    observed.disks[1].volume.as_mut().unwrap().spec.provisional = false;
    assert_eq!(bound(&observed), "data on i");
    // So is one that has none, if the rest fits there.
    observed.disks[1].volume.as_mut().unwrap().spec.provisional = true;
    assert_eq!(bound(&observed), "data on i");
    // And a member of the placement group is not joined.
    let mut observed = unbound();
    observed.vm.spec.placement_group = Some("web".into());
    (observed.group, observed.group_hosts) = (Some(group("a")), vec!["h".into()]);
    assert_eq!(bound(&observed), "data on i, boot on i");
}

#[test]
fn volumes_that_were_never_used_leave_a_host_that_is_full() {
    let released = |observed: &Observed| match &plan(observed, Timestamp::UNIX_EPOCH)[..] {
        [Step::Release(disks)] => disks.join(", "),
        other => panic!("{other:?}"),
    };
    // Another one took the disk for the second volume, or the memory: there may be another host, or none.
    for hosts in [2, 1] {
        let mut observed = unbound();
        observed.hosts.truncate(hosts);
        bind(&mut observed, 0, "h");
        observed.hosts[0].promised.disk_bytes += 1 << 30;
        assert_eq!(released(&observed), "data");
        let mut observed = unbound();
        observed.hosts.truncate(hosts);
        (0..2).for_each(|index| bind(&mut observed, index, "h"));
        observed.hosts[0].refused = Some("host/h has 0 of 5 memory left".into());
        assert_eq!(released(&observed), "data, boot");
    }
    // Two that came to be apart.
    let mut observed = unbound();
    bind(&mut observed, 0, "h");
    bind(&mut observed, 1, "i");
    assert_eq!(released(&observed), "boot");
    // What has data stays, whatever else is to be done.
    observed.disks[0].volume.as_mut().unwrap().spec.provisional = false;
    observed.hosts[0].promised.memory_bytes = 1 << 30;
    assert_eq!(released(&observed), "boot");
    observed.disks[1].volume = None;
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![]);
    assert_eq!(state(&observed), State::ErrorUnschedulable);
    // A host that is away cannot remove anything; it is waited for unless there is another.
    let mut observed = unbound();
    bind(&mut observed, 0, "h");
    observed.hosts[0].is_open = false;
    assert_eq!(released(&observed), "data");
    observed.hosts.truncate(1);
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![]);
    assert_eq!(state(&observed), State::ErrorUnschedulable);
}

#[test]
fn volumes_are_kept_when_the_machine_has_its_place() {
    let mut observed = unbound();
    (0..2).for_each(|index| bind(&mut observed, index, "h"));
    let steps = plan(&observed, Timestamp::UNIX_EPOCH);
    let [Step::CreateMachine(spec), Step::Keep(kept)] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(kept, &["data".to_owned(), "boot".to_owned()]);
    // After a crash between the two.
    observed.machines = vec![of(
        json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Machine", "metadata": {"name": "vm-1", "uid": "m"},
        "spec": serde_json::to_value(spec).unwrap()}),
    )];
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![Step::Keep(kept.clone())]);
    observed.disks.iter_mut().for_each(|disk| disk.volume.as_mut().unwrap().spec.provisional = false);
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![]);
    // Another controller released one meanwhile: the machine can never start.
    observed.disks[0].volume.as_mut().unwrap().metadata.deletion_timestamp = Some(of(json!("1970-01-01T00:00:00Z")));
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![Step::DeleteMachine]);
    observed.machines[0].status = Some(of(json!({"phase": "Running"})));
    assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![], "what has started is left alone");
}

#[test]
fn the_zone_is_the_vms_or_that_of_its_disks_or_of_its_group_or_the_first() {
    let chosen = |change: &dyn Fn(&mut Observed)| {
        let mut observed = unbound();
        observed.hosts[1].zone = Some("b".into());
        change(&mut observed);
        match &plan(&observed, Timestamp::UNIX_EPOCH)[..] {
            [Step::Bind(disks)] => disks[0].1.host_name.clone(),
            other => panic!("{other:?}: {:?}", status(&observed, Timestamp::UNIX_EPOCH).conditions),
        }
    };
    let in_group = |observed: &mut Observed, zone: &str| {
        observed.vm.spec.placement_group = Some("web".into());
        observed.group = Some(group(zone));
    };
    assert_eq!(chosen(&|_| {}), "h", "the first zone");
    assert_eq!(chosen(&|o| o.vm.spec.placement = Some(of(json!({"zone": "b"})))), "i");
    assert_eq!(chosen(&|o| o.vm.spec.placement = Some(of(json!({"zone": ""})))), "h", "an empty text is none");
    assert_eq!(chosen(&|o| o.disks[1].zone = Some("b".into())), "i");
    assert_eq!(chosen(&|o| in_group(o, "b")), "i");
    assert_eq!(chosen(&|o| in_group(o, "")), "h", "a group without a zone is in the first");
}

#[test]
fn the_state_follows_the_machine() {
    let running = with_machine(startable(), "Running");
    let mut stopping = running.clone();
    stopping.vm.spec.running = false;
    let mut stopped = startable();
    stopped.vm.spec.running = false;
    for (name, observed, expected, steps) in [
        ("preparing", with_machine(startable(), "Pending"), State::Provisioning, vec![]),
        ("starting", with_machine(startable(), "Starting"), State::Starting, vec![]),
        ("running", running.clone(), State::Running, vec![]),
        ("switched off", stopping, State::Stopping, vec![Step::DeleteMachine]),
        ("off", stopped, State::Stopped, vec![]),
        ("deleted while it runs", deleted(running), State::Terminating, vec![Step::DeleteMachine]),
        ("deleted", deleted(startable()), State::Deleting, vec![Step::RemoveFinalizer]),
    ] {
        assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), steps, "{name}");
        assert_eq!(state(&observed), expected, "{name}");
    }
}

#[test]
fn a_guest_that_powered_off_is_started_again_after_a_pause() {
    let observed = with_machine(startable(), "Stopped");
    let [Step::LookAgain(pause)] = &plan(&observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
    let later = Timestamp::from_second(i64::try_from(pause.as_secs()).unwrap() + 1).unwrap();
    assert_eq!(plan(&observed, later), vec![Step::DeleteMachine]);
    assert_eq!(state(&observed), State::CrashLoopBackOff);
}

#[test]
fn the_pause_before_a_restart_doubles_to_five_minutes_and_restarts_are_counted() {
    let mut pauses = vec![];
    let mut observed = startable();
    for _ in 0..7 {
        observed = with_machine(observed, "Failed");
        let [Step::LookAgain(pause)] = &plan(&observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
        pauses.push(pause.as_secs());
        let counted = status(&observed, Timestamp::UNIX_EPOCH);
        assert_eq!(counted.restarts, i32::try_from(pauses.len()).ok());
        observed.vm.status = Some(counted);
        observed.machines.clear();
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    observed = with_machine(observed, "Running");
    assert_eq!(status(&observed, Timestamp::UNIX_EPOCH).restarts, Some(7));
    observed.vm.spec.running = false;
    assert_eq!(status(&observed, Timestamp::UNIX_EPOCH).restarts, None);
}

#[test]
fn a_guest_that_ran_for_long_is_started_again_soon() {
    let mut long = with_machine(startable(), "Stopped");
    let machine = long.machines[0].status.as_mut().unwrap();
    machine.started_at = Some(of(json!("1970-01-01T00:00:00Z")));
    machine.conditions[0].last_transition_time = of(json!("1970-01-01T01:00:00Z"));
    long.machines[0].spec.restarts = 7;
    let ended = Timestamp::from_second(3600).unwrap();
    assert_eq!(plan(&long, ended), vec![Step::LookAgain(Duration::from_secs(1))], "it may be rebooting");
    assert_eq!(status(&long, ended).restarts, Some(1), "counted again");
}

#[test]
fn a_guest_keeps_the_hardware_of_its_first_start() {
    let mut observed = startable();
    observed.hosts[0].machine_type = Some("pc-i440fx-7.2".into());
    observed.hosts[0].cpu_model = Some("x86-64-v3".into());
    let first = status(&observed, Timestamp::UNIX_EPOCH);
    assert_eq!(first.hardware.as_ref().unwrap().machine_type, "pc-i440fx-7.2");
    observed.vm.status = Some(first);
    observed.hosts[0].machine_type = Some("pc-i440fx-10.0".into());
    observed.vm.status = Some(status(&observed, Timestamp::UNIX_EPOCH));
    let [Step::CreateMachine(spec)] = &plan(&observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
    assert_eq!(spec.machine_type.as_deref(), Some("pc-i440fx-7.2"));
}

#[test]
fn only_an_end_is_followed_by_a_new_start() {
    let later = Timestamp::from_second(1_000_000).unwrap();
    for (phase, expected, steps) in [
        ("Unknown", State::Unknown, vec![]),
        ("Paused", State::Paused, vec![]),
        ("Running", State::Running, vec![]),
        ("Stopped", State::CrashLoopBackOff, vec![Step::DeleteMachine]),
        ("Failed", State::CrashLoopBackOff, vec![Step::DeleteMachine]),
    ] {
        let observed = with_machine(startable(), phase);
        assert_eq!(plan(&observed, later), steps, "{phase}");
        assert_eq!(state(&observed), expected, "{phase}");
        let ready = evroc_api::conditions::is_true(&status(&observed, later).conditions, "Ready");
        assert_eq!(ready, phase == "Running", "{phase}");
    }
}

#[test]
fn a_host_that_cannot_find_out_ends_nothing() {
    let much_later = Timestamp::from_second(1_000_000).unwrap();
    let unknown = with_machine(startable(), "Unknown");
    assert_eq!((plan(&unknown, much_later), state(&unknown)), (vec![], State::Unknown));
    let ready = &status(&unknown, much_later).conditions[0];
    assert_eq!((ready.type_.as_str(), ready.status.as_str()), ("Ready", "Unknown"));
    assert_eq!(plan(&with_machine(startable(), "Paused"), much_later), vec![]);
    // A host of an earlier version reports the same as a failure.
    let mut earlier = with_machine(startable(), "Failed");
    earlier.machines[0].status.as_mut().unwrap().conditions = vec![of(condition("Ready", "False", "CannotObserve"))];
    assert_eq!(plan(&earlier, much_later), vec![]);
}

#[test]
fn every_incarnation_has_a_number_of_its_own() {
    let next = |observed: &Observed| -> MachineSpec {
        let [Step::CreateMachine(spec)] = &plan(observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
        (**spec).clone()
    };
    let mut observed = startable();
    assert_eq!(next(&observed).epoch, 1);
    observed.vm.status.as_mut().unwrap().epoch = Some(7);
    assert_eq!(next(&observed).epoch, 8, "also after an epoch that nothing was made of");
    // Earlier versions took the epoch from the clock, and kept it in the machine only.
    let mut earlier = with_machine(startable(), "Running");
    earlier.machines[0].spec.epoch = 1_700_000_000_000;
    let shown = status(&earlier, Timestamp::UNIX_EPOCH);
    assert_eq!(shown.epoch, Some(1_700_000_000_000));
    earlier.machines.clear();
    earlier.vm.status = Some(shown);
    assert_eq!(next(&earlier).epoch, 1_700_000_000_001);
}

#[test]
fn two_incarnations_end_before_the_vm_does() {
    let mut two = deleted(with_machine(startable(), "Running"));
    let mut ending = two.machines[0].clone();
    ending.metadata.deletion_timestamp = Some(of(json!("1970-01-01T00:00:00Z")));
    two.machines.push(ending.clone());
    assert_eq!(plan(&two, Timestamp::UNIX_EPOCH), vec![Step::DeleteMachine]);
    two.machines = vec![ending];
    assert_eq!(plan(&two, Timestamp::UNIX_EPOCH), vec![], "it waits");
}

#[test]
fn a_refused_write_is_not_repeated_at_once() {
    let mut observed = startable();
    observed.refused = Some("metadata.name: too long".into());
    let [Step::LookAgain(_)] = &plan(&observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
    assert_eq!(state(&observed), State::ProvisioningFailed);
    let mut observed = startable();
    observed.hosts[0].refused = Some("host/h has 0 of 5 memory left".into());
    let [Step::LookAgain(_)] = &plan(&observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
    let message = status(&observed, Timestamp::UNIX_EPOCH).conditions[0].message.clone();
    assert!(message.contains("host/h has 0 of 5 memory left"), "{message}");
}

#[test]
fn addresses_are_those_of_the_subnet_as_it_is_now() {
    let assigned = |block: &str, has: Option<&str>, taken: &[&str]| {
        let mut observed = startable();
        match has {
            Some(address) => observed.vm.status = Some(of(json!({"networking": {"privateIPv4Address": address}}))),
            None => observed.vm.status = None,
        }
        observed.subnet.as_mut().unwrap().spec.ipv4_cidr_block.block = block.into();
        observed.taken_addresses = taken.iter().map(|address| address.parse().unwrap()).collect();
        match &plan(&observed, Timestamp::UNIX_EPOCH)[..] {
            [Step::AssignAddress(address)] => Some(address.to_string()),
            _ => None,
        }
    };
    for (block, has, taken, expected) in [
        // An earlier version accepted host bits.
        ("10.0.0.7/24", None, &[][..], Some("10.0.0.3")),
        ("10.0.0.8/30", None, &[], None),
        ("10.0.0.0/29", None, &["10.0.0.3", "10.0.0.4", "10.0.0.5"], Some("10.0.0.6")),
        ("10.0.0.0/29", None, &["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"], None),
        ("10.0.0.0/32", None, &[], None),
        ("255.255.255.0/24", None, &[], None),
        ("nonsense", None, &[], None),
        // The subnet was deleted and made again with other addresses.
        ("10.1.0.0/24", Some("10.0.0.9"), &["10.1.0.3"], Some("10.1.0.4")),
        ("10.0.0.0/29", Some("10.0.0.7"), &[], Some("10.0.0.3")),
        ("10.0.0.0/24", Some("10.0.0.1"), &[], Some("10.0.0.3")),
        ("10.0.0.0/29", Some("10.0.0.6"), &[], None),
    ] {
        let found = assigned(block, has, taken);
        assert_eq!(found.as_deref(), expected, "{block} {has:?} {taken:?}");
    }
}

#[test]
fn a_subnet_without_usable_addresses_says_so() {
    for (block, part) in [("10.0.0.0/32", "prefix length"), ("127.0.0.0/8", "loopback"), ("nonsense", "10.0.0.0/24")] {
        let mut observed = startable();
        observed.subnet.as_mut().unwrap().spec.ipv4_cidr_block.block = block.into();
        assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![], "{block}");
        assert_eq!(state(&observed), State::ProvisioningFailed, "{block}");
        let message = status(&observed, Timestamp::UNIX_EPOCH).conditions[0].message.clone();
        assert!(message.contains("spec.ipv4CidrBlock.block") && message.contains(part), "{message}");
    }
}
