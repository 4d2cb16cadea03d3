//! Snapshots of all objects, without the fields that differ from run to run: two runs of one story must end alike.

use std::collections::BTreeMap;

use evroc_api::compute::{Disk, PlacementGroup, VirtualMachine};
use evroc_api::iam::ResourceGroup;
use evroc_api::infra::{Machine, Replica, Volume};
use evroc_api::networking::{Subnet, VirtualPrivateCloud};
use evroc_api::run::{Revision, Service};
use kube::api::ListParams;
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::client::ApiOf;

/// Fields whose values are new in every run.
const VOLATILE: [&str; 13] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "lastTransitionTime",
    "lastRequestTime",
    "startedAt",
    "epoch",
    "observedEpoch",
    "vpcUid",
    "virtualMachineUid",
    "mac",
    "diskUid",
];

/// Every object that a user can make or that the platform makes of it: `Kind/name` and content.
pub(crate) async fn take(client: &Client) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    add::<ResourceGroup>(&mut all, client).await;
    add::<VirtualPrivateCloud>(&mut all, client).await;
    add::<Subnet>(&mut all, client).await;
    add::<VirtualMachine>(&mut all, client).await;
    add::<Disk>(&mut all, client).await;
    add::<PlacementGroup>(&mut all, client).await;
    add::<Machine>(&mut all, client).await;
    add::<Volume>(&mut all, client).await;
    add::<Service>(&mut all, client).await;
    add::<Revision>(&mut all, client).await;
    add::<Replica>(&mut all, client).await;
    all
}

async fn add<K: ApiOf>(all: &mut BTreeMap<String, Value>, client: &Client) {
    for object in K::api(client.clone()).list(&ListParams::default()).await.expect("a list").items {
        let mut value = serde_json::to_value(&object).expect("an object is JSON");
        // The number of an incarnation is part of its name, and may differ.
        let name = match value.pointer("/spec/virtualMachine").and_then(Value::as_str) {
            Some(virtual_machine) => virtual_machine.to_owned(),
            None => object.name_any(),
        };
        value["metadata"]["name"] = name.clone().into();
        strip(&mut value);
        all.insert(format!("{}/{name}", K::kind(&())), value);
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !VOLATILE.contains(&key.as_str()) && key != "url");
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
