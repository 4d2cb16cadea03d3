//! Tables: given what is observed, these steps and this status.

use evroc_api::compute::{Disk, DiskImage};
use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Host, Volume};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::observe::Observed;
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

fn host() -> Host {
    of(
        json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Host", "metadata": {"name": "h"}, "spec": {"zone": "a"}, "status": {
        "allocatable": {"cpus": 2, "memoryBytes": 1u64 << 34, "diskBytes": 1u64 << 40},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
    )
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
        users: vec![],
        hosts: vec![host()],
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
    assert_eq!(status(&observed, Timestamp::UNIX_EPOCH).disk_size.unwrap().amount, 2);
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
    for (name, observed, expected) in [
        ("unknown image", unknown, "DiskImageNotFound"),
        ("too small", big, "DiskTooSmall"),
        ("no host", no_host, "Pending"),
        ("no such zone", zone, "Pending"),
        ("zero bytes", empty, "DiskSizeInvalid"),
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
