//! What there is, without what differs from run to run: two runs of one story must end alike.

use std::collections::BTreeMap;

use evroc_api::compute::{Disk, VirtualMachine};
use evroc_api::iam::ResourceGroup;
use evroc_api::infra::{Machine, Replica, Volume};
use evroc_api::networking::{Subnet, VirtualPrivateCloud};
use evroc_api::run::{Revision, Service};
use kube::api::ListParams;
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::client::ApiOf;

/// Fields whose values are new in every run.
const VOLATILE: [&str; 12] = [
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
];

/// Every object that a user can make or that the platform makes of it: `Kind/name` and content.
pub(crate) async fn take(client: &Client) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    add::<ResourceGroup>(&mut all, client).await;
    add::<VirtualPrivateCloud>(&mut all, client).await;
    add::<Subnet>(&mut all, client).await;
    add::<VirtualMachine>(&mut all, client).await;
    add::<Disk>(&mut all, client).await;
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
        strip(&mut value);
        all.insert(format!("{}/{}", K::kind(&()), object.name_any()), value);
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
