//! Subnet: how many of its addresses are in use.
//!
//! The count may lag behind: the address itself is unique, because each virtual machine claims it in the store.
//! Who writes what: this controller writes Subnet.status.

mod status;

use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::VirtualMachine;
use evroc_api::networking::{DEFAULT_NETWORK, Subnet};
use evroc_controller::{Change, Queue, Result, get, report_status};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use crate::context::{Network, address, is_failure};
use status::status;

/// Subnets that are reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// How long addresses have to stay as they are before they are counted. Too low writes a status for each of many virtual machines that
/// start together; too high shows a stale number.
const DEBOUNCE: Duration = Duration::from_millis(100);

pub(crate) async fn run(context: Arc<Network>) {
    let queue = Queue::new(&context.subnets).debounced(DEBOUNCE).on(&context.vms, counted);
    queue.run(CONCURRENCY, reconcile, context).await;
}

/// The subnet of a virtual machine that was given an address, or was removed with it.
fn counted(change: &Change<VirtualMachine>) -> Vec<ObjectRef<Subnet>> {
    if !change.differs(|vm| address(vm).map(str::to_owned)) {
        return vec![];
    }
    let namespace = change.both().last().and_then(ResourceExt::namespace);
    namespace.map(|namespace| ObjectRef::new(DEFAULT_NETWORK).within(&namespace)).into_iter().collect()
}

async fn reconcile(subnet: Arc<Subnet>, context: Arc<Network>) -> Result<Action> {
    let namespace = subnet.namespace().unwrap_or_default();
    let subnets = Api::<Subnet>::namespaced(context.base.client.clone(), &namespace);
    let Some(subnet) = get(&subnets, &subnet.name_any()).await? else { return Ok(Action::await_change()) };
    let in_use = context.vms_with_address.references(&namespace).len();
    report_status(&context.base, &subnets, &subnet, &status(&subnet, in_use, context.base.now()), is_failure).await?;
    Ok(Action::await_change())
}
