//! Tables: given these observations, this step and this status.

use evroc_api::compute::{PlacementGroup, VirtualMachine};
use evroc_api::conditions::{self, READY};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::observe::Observed;
use super::plan::{Step, plan};
use super::status::status;

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn vm(name: &str, state: &str) -> VirtualMachine {
    of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "test.xs"}, "diskRefs": [{"name": name}], "placementGroup": "web"},
        "status": {"virtualMachineStatus": state}}))
}

fn observed(spec: Value) -> Observed {
    let group: PlacementGroup = of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "PlacementGroup",
        "metadata": {"name": "web", "finalizers": [evroc_api::COMPUTE_FINALIZER]}, "spec": spec}));
    Observed { group, members: vec![], zones: vec!["a".into(), "b".into()] }
}

fn ready(observed: &Observed) -> (String, String, String) {
    let status = status(observed, Timestamp::UNIX_EPOCH);
    let ready = conditions::get(&status.conditions, READY).unwrap();
    (ready.status.clone(), ready.reason.clone(), ready.message.clone())
}

#[test]
fn a_group_is_in_its_zone_or_in_the_first_and_stays_there() {
    let zone = |observed: &Observed| status(observed, Timestamp::UNIX_EPOCH).placement.unwrap().zone.unwrap();
    let mut without = observed(json!({}));
    assert_eq!(zone(&without), "a");
    without.group.status = Some(status(&without, Timestamp::UNIX_EPOCH));
    without.zones.insert(0, "0".into());
    assert_eq!(zone(&without), "a", "a zone that comes later moves nothing");
    assert_eq!(zone(&observed(json!({"placement": {"zone": "b"}}))), "b");
    let unknown = observed(json!({"placement": {"zone": "z"}}));
    let (status, reason, message) = ready(&unknown);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Pending"));
    assert!(message.contains("(a, b)") && message.contains("\"z\""), "{message}");
}

#[test]
fn members_are_shown_with_what_became_of_them() {
    let mut group = observed(json!({}));
    group.members =
        vec![(vm("a", "Running"), true), (vm("b", "ErrorUnschedulable"), false), (vm("c", "Stopped"), false)];
    let shown = status(&group, Timestamp::UNIX_EPOCH).virtual_machines;
    let shown: Vec<_> =
        shown.iter().map(|it| (it.name.as_str(), it.scheduled.unwrap(), it.message.is_some())).collect();
    assert_eq!(shown, [("a", true, false), ("b", false, true), ("c", false, true)]);
    assert_eq!(ready(&group).0, "True", "the group itself is in order");
}

#[test]
fn a_deleted_group_waits_for_its_members_by_name() {
    let mut group = observed(json!({}));
    group.group.metadata.finalizers = None;
    assert_eq!(plan(&group), Some(Step::AddFinalizer));
    let mut group = observed(json!({}));
    assert_eq!(plan(&group), None);
    group.group.metadata.deletion_timestamp = Some(of(json!("1970-01-01T00:00:00Z")));
    group.members = vec![(vm("a", "Running"), true), (vm("b", "Deleting"), false)];
    assert_eq!(plan(&group), None);
    let (_, reason, message) = ready(&group);
    assert_eq!(reason, "InUse");
    assert!(message.ends_with("VirtualMachine \"a\", VirtualMachine \"b\""), "{message}");
    group.members.clear();
    assert_eq!(plan(&group), Some(Step::RemoveFinalizer));
}
