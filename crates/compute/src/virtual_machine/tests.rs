//! Tables: given what is observed, these steps and this status.

use evroc_api::compute::VirtualMachineStatusType as State;
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
        machine: None,
        machines: vec![],
        hosts: vec![of(
            json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Host", "metadata": {"name": "h"}, "spec": {"zone": "a"}, "status": {
            "allocatable": {"cpus": 2, "memoryBytes": 1u64 << 30, "diskBytes": 1u64 << 40}, "conditions": [condition("Ready", "True", "Ready")]}}),
        )],
        vpc: Some(of(
            json!({"apiVersion": "networking.evroclabs.net/v1alpha1", "kind": "VirtualPrivateCloud", "metadata": {"name": "default", "uid": "vpc-uid"}, "spec": {}}),
        )),
        subnet: Some(of(
            json!({"apiVersion": "networking.evroclabs.net/v1alpha1", "kind": "Subnet", "metadata": {"name": "default"},
            "spec": {"vpcRef": {"name": "default"}, "ipv4CidrBlock": {"block": "10.0.0.0/24"}}}),
        )),
        taken_addresses: vec![],
    }
}

fn disk(name: &str) -> ObservedDisk {
    ObservedDisk {
        name: name.into(),
        disk: Some(of(
            json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "Disk", "metadata": {"name": name},
            "spec": {"diskImage": {"diskImageRef": {"name": "tiny.1-0.1"}}}, "status": {"conditions": [condition("Ready", "True", "Ready")]}}),
        )),
        volume: Some(of(
            json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Volume", "metadata": {"name": name}, "spec": {"hostName": "h", "sizeBytes": 1}}),
        )),
    }
}

fn with_machine(mut observed: Observed, phase: &str) -> Observed {
    let [Step::CreateMachine(spec)] = &plan(&observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
    observed.machine = Some(of(
        json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Machine", "metadata": {"name": "vm", "uid": "m"},
        "spec": serde_json::to_value(spec).unwrap(), "status": {"phase": phase, "conditions": [condition("Ready", "True", "Ready")]}}),
    ));
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
    let cases: [(&str, Observed, State, &str); 9] = [
        ("no profile", change(&|o| o.profile = None), State::ProvisioningFailed, "spec.vmVirtualResourcesRef"),
        ("no disk", change(&|o| o.disks[0].disk = None), State::ErrorPvcNotFound, "spec.diskRefs[0].name"),
        (
            "disk on its way",
            change(&|o| o.disks[0].disk.as_mut().unwrap().status = None),
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
            "no placement groups yet",
            change(&|o| o.vm.spec.placement_group = Some("pg".into())),
            State::ProvisioningFailed,
            "spec.placementGroup",
        ),
    ];
    for (name, observed, expected, part) in cases {
        assert_eq!(plan(&observed, Timestamp::UNIX_EPOCH), vec![], "{name}");
        assert_eq!(state(&observed), expected, "{name}");
        let status = status(&observed, Timestamp::UNIX_EPOCH);
        assert!(status.conditions[0].message.contains(part), "{name}: {}", status.conditions[0].message);
    }
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

/// A failed look at a machine is not its end: what the host cannot see may be a healthy guest.
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
        observed.machine = None;
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    observed = with_machine(observed, "Running");
    assert_eq!(status(&observed, Timestamp::UNIX_EPOCH).restarts, Some(7));
    observed.vm.spec.running = false;
    assert_eq!(status(&observed, Timestamp::UNIX_EPOCH).restarts, None);
}

#[test]
fn a_guest_keeps_the_hardware_of_its_first_start() {
    let mut observed = startable();
    let offers = observed.hosts[0].status.as_mut().unwrap();
    offers.machine_types = vec!["pc-i440fx-7.2".into(), "pc-i440fx-7.1".into()];
    offers.cpu_models = vec!["x86-64-v3".into()];
    let first = status(&observed, Timestamp::UNIX_EPOCH);
    assert_eq!(first.hardware.as_ref().unwrap().machine_type, "pc-i440fx-7.2");
    observed.vm.status = Some(first);
    observed.hosts[0].status.as_mut().unwrap().machine_types.insert(0, "pc-i440fx-10.0".into());
    observed.vm.status = Some(status(&observed, Timestamp::UNIX_EPOCH));
    let [Step::CreateMachine(spec)] = &plan(&observed, Timestamp::UNIX_EPOCH)[..] else { panic!("other steps") };
    assert_eq!(spec.machine_type.as_deref(), Some("pc-i440fx-7.2"));
}
