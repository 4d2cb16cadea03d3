//! Tables: given these observations, these steps and this status.

use evroc_api::compute::{Disk, DiskImage};
use evroc_api::conditions::{self, READY};
use evroc_api::infra::Volume;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::contents::contents;
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
        zones: vec!["a".into(), "b".into()],
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
    let contents = contents(&observed.disk, observed.image.as_ref(), &[]).unwrap();
    assert_eq!((contents.image.as_deref(), contents.bytes), (Some("tiny"), 2 << 30));
}

#[test]
fn a_disk_without_a_host_is_ready_for_its_first_vm() {
    let mut unbound = observed(from_image());
    assert_eq!((plan(&unbound), reason(&unbound).as_str()), (vec![], "Ready"));
    assert!(message(&unbound).contains("gets a host with the first one"), "{}", message(&unbound));
    let shown = status(&unbound, Timestamp::UNIX_EPOCH);
    assert_eq!((shown.disk_size.unwrap().to_string(), shown.placement), ("2 GB".to_owned(), None));
    unbound.disk.spec.placement = Some(of(json!({"zone": "b"})));
    assert_eq!(status(&unbound, Timestamp::UNIX_EPOCH).placement.unwrap().zone.as_deref(), Some("b"));
    unbound.volume = Some(volume("True"));
    unbound.volume.as_mut().unwrap().metadata.deletion_timestamp = Some(of(json!("2026-01-01T00:00:00Z")));
    assert_eq!(reason(&unbound), "Provisioning", "it moves to another host");
}

#[test]
fn the_status_shows_the_size_that_the_host_reports() {
    let mut observed = observed(from_image());
    let shown = |observed: &Observed| status(observed, Timestamp::UNIX_EPOCH).disk_size.map(|size| size.to_string());
    assert_eq!(shown(&observed).as_deref(), Some("2 GB"), "as it will be");
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
    let zone = observed(json!({"diskImage": {"diskImageRef": {"name": "tiny"}}, "placement": {"zone": "z"}}));
    let empty = observed(json!({"diskSize": {"amount": 0, "unit": "GB"}}));
    let mut refused = observed(from_image());
    refused.refused = Some("metadata.labels: too long".into());
    for (name, observed, expected) in [
        ("unknown image", unknown, "DiskImageNotFound"),
        ("too small", big, "DiskTooSmall"),
        ("no such zone", zone, "Pending"),
        ("zero bytes", empty, "DiskSizeInvalid"),
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
