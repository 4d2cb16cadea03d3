//! Tables: given these observations, these steps and this status.

use evroc_api::compute::{Disk, DiskImage};
use evroc_api::conditions::{self, READY};
use evroc_api::infra::Volume;
use evroc_placement::{HostFacts, Room};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::observe::{Observed, Sibling};
use super::plan::{Step, plan};
use super::status::status;

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn image(minimum_gb: u64) -> DiskImage {
    of(
        json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "DiskImage", "metadata": {"name": "tiny"}, "spec": {
        "defaultSize": {"amount": 2, "unit": "GB"}, "minimumSizeBytes": minimum_gb << 30, "osArch": "amd64", "osImage": "tiny", "osVersion": "1",
        "version": "1", "sha256": "00"}}),
    )
}

fn host(name: &str, zone: &str, disk_gb: u64) -> HostFacts {
    HostFacts {
        name: name.into(),
        zone: Some(zone.into()),
        is_open: true,
        room: Some(Room { cpus: 2, memory_bytes: 16 << 30, disk_bytes: disk_gb << 30 }),
        ..HostFacts::default()
    }
}

fn disk(spec: Value) -> Disk {
    of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "Disk",
        "metadata": {"name": "d", "namespace": "demo", "uid": "u", "finalizers": [evroc_api::COMPUTE_FINALIZER]}, "spec": spec}))
}

fn observed(spec: Value) -> Observed {
    Observed {
        disk: disk(spec),
        image: Some(image(1)),
        image_names: vec!["tiny".into()],
        volume: None,
        zone: None,
        users: vec![],
        siblings: vec![],
        memory_bytes: 0,
        hosts: vec![host("h", "a", 1024)],
        refused: None,
    }
}

fn volume(ready: &str) -> Volume {
    of(
        json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Volume", "metadata": {"name": "d"}, "spec": {"hostName": "h", "sizeBytes": 1},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "Provisioning", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
    )
}

fn reason(observed: &Observed) -> String {
    conditions::get(&status(observed, Timestamp::UNIX_EPOCH).conditions, READY).unwrap().reason.clone()
}

const FROM_IMAGE: &str = "tiny";

fn from_image() -> Value {
    json!({"diskImage": {"diskImageRef": {"name": FROM_IMAGE}}})
}

#[test]
fn a_disk_without_a_size_has_the_images() {
    let observed = observed(from_image());
    let [Step::CreateVolume(spec)] = &plan(&observed)[..] else { panic!("other steps") };
    assert_eq!((spec.host_name.as_str(), spec.image.as_deref(), spec.size_bytes), ("h", Some("tiny"), 2 << 30));
}

#[test]
fn the_status_shows_the_size_that_the_host_reports() {
    let mut observed = observed(from_image());
    let shown = |observed: &Observed| status(observed, Timestamp::UNIX_EPOCH).disk_size.map(|size| size.to_string());
    assert_eq!(shown(&observed), None, "it is not made yet");
    observed.volume = Some(volume("False"));
    assert_eq!(shown(&observed), None, "the host has not reported it yet");
    for (bytes, expected) in [(512 << 20, "512 MB"), (2 << 30, "2 GB"), (3 << 40, "3 TB")] {
        observed.volume.as_mut().unwrap().status.as_mut().unwrap().size_bytes = Some(bytes);
        assert_eq!(shown(&observed).as_deref(), Some(expected));
    }
    observed.disk.spec.disk_size = Some(of(json!({"amount": 2048, "unit": "MB"})));
    observed.volume.as_mut().unwrap().status.as_mut().unwrap().size_bytes = Some(2 << 30);
    assert_eq!(shown(&observed).as_deref(), Some("2048 MB"), "as the user wrote it");
}

#[test]
fn what_keeps_a_disk_from_being_made() {
    let mut unknown = observed(json!({"diskImage": {"diskImageRef": {"name": "nope"}}}));
    unknown.image = None;
    let mut big =
        observed(json!({"diskImage": {"diskImageRef": {"name": "tiny"}}, "diskSize": {"amount": 3, "unit": "GB"}}));
    big.image = Some(image(4));
    let mut no_host = observed(from_image());
    no_host.hosts = vec![];
    let zone = observed(json!({"diskImage": {"diskImageRef": {"name": "tiny"}}, "placement": {"zone": "z"}}));
    let empty = observed(json!({"diskSize": {"amount": 0, "unit": "GB"}}));
    let mut full = observed(json!({"diskSize": {"amount": 2, "unit": "TB"}}));
    full.image = None;
    let mut refused = observed(from_image());
    refused.refused = Some("metadata.labels: too long".into());
    for (name, observed, expected) in [
        ("unknown image", unknown, "DiskImageNotFound"),
        ("too small", big, "DiskTooSmall"),
        ("no host", no_host, "Pending"),
        ("no such zone", zone, "Pending"),
        ("zero bytes", empty, "DiskSizeInvalid"),
        ("larger than every host", full, "Unschedulable"),
        ("refused for good", refused, "VolumeRefused"),
    ] {
        assert_eq!(plan(&observed), vec![], "{name}");
        assert_eq!(reason(&observed), expected, "{name}");
    }
}

#[test]
fn ready_follows_the_volume() {
    let mut observed = observed(from_image());
    observed.volume = Some(volume("False"));
    assert_eq!(reason(&observed), "Provisioning");
    observed.volume = Some(volume("True"));
    observed.zone = Some("a".into());
    assert_eq!(reason(&observed), "Ready");
    assert_eq!(status(&observed, Timestamp::UNIX_EPOCH).placement.unwrap().zone.as_deref(), Some("a"));
}

#[test]
fn a_deleted_disk_waits_for_its_user_and_then_for_its_volume() {
    let mut observed = observed(from_image());
    observed.disk.metadata.deletion_timestamp = Some(of(json!("2026-01-01T00:00:00Z")));
    observed.volume = Some(volume("True"));
    observed.users = vec![of(
        json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "VirtualMachine", "metadata": {"name": "vm"},
        "spec": {"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "test.xs"}, "diskRefs": [{"name": "d"}]}}),
    )];
    assert_eq!((plan(&observed), reason(&observed).as_str()), (vec![], "InUse"));
    observed.users.clear();
    assert_eq!(plan(&observed), vec![Step::DeleteVolume]);
    observed.volume.as_mut().unwrap().metadata.deletion_timestamp = Some(of(json!("2026-01-01T00:00:00Z")));
    assert_eq!(plan(&observed), vec![]);
    observed.volume = None;
    assert_eq!(plan(&observed), vec![Step::RemoveFinalizer]);
}

fn message(observed: &Observed) -> String {
    conditions::get(&status(observed, Timestamp::UNIX_EPOCH).conditions, READY).unwrap().message.clone()
}

fn chosen(observed: &Observed) -> String {
    let [Step::CreateVolume(spec)] = &plan(observed)[..] else { panic!("other steps: {}", message(observed)) };
    spec.host_name.clone()
}

#[test]
fn the_disks_of_one_vm_go_to_one_host() {
    let mut disk = observed(from_image());
    // Alone it goes where there is most room.
    disk.hosts = vec![host("large", "a", 100), host("small", "a", 10), host("far", "b", 50)];
    assert_eq!(chosen(&disk), "large");
    disk.siblings = vec![Sibling::Unbound(1 << 30), Sibling::Bound("small".into())];
    assert_eq!(chosen(&disk), "small", "it follows a sibling");
    disk.hosts[1].promised.disk_bytes = 9 << 30;
    assert_eq!(reason(&disk), "Unschedulable");
    assert!(message(&disk).contains("small has 1.0 GB of 10.0 GB of disk free"), "{}", message(&disk));
    // Without a sibling that has a host, all of them have to fit, and the machine where that is possible.
    disk.siblings = vec![Sibling::Unbound(60 << 30)];
    assert_eq!(chosen(&disk), "large");
    disk.siblings = vec![Sibling::Unbound(20 << 30)];
    disk.memory_bytes = 8 << 30;
    disk.hosts[0].promised.memory_bytes = 10 << 30;
    assert_eq!(chosen(&disk), "far", "the machine does not fit on the larger one");
    disk.hosts[2].promised.memory_bytes = 10 << 30;
    assert_eq!(chosen(&disk), "large", "no host has room for the machine yet");
    disk.siblings = vec![Sibling::Unbound(200 << 30)];
    assert!(message(&disk).contains("202.0 GB together with the other disks of its VM"), "{}", message(&disk));
}

#[test]
fn the_zone_that_the_user_wants_counts_more_than_a_sibling() {
    let mut disk = observed(json!({"diskImage": {"diskImageRef": {"name": "tiny"}}, "placement": {"zone": "b"}}));
    disk.hosts = vec![host("near", "a", 100), host("far", "b", 50)];
    disk.siblings = vec![Sibling::Bound("near".into())];
    assert_eq!(chosen(&disk), "far");
}
