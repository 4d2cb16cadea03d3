//! VirtualPrivateCloud: its status. The host makes a network namespace for it where a machine needs one.
//! Who writes what: this controller writes VirtualPrivateCloud.status.

use std::sync::Arc;

use evroc_api::conditions::{self, READY};
use evroc_api::networking::VirtualPrivateCloud;
use evroc_controller::{Queue, Result, get, report_status};
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;

use crate::context::{Network, is_failure, usable};

/// VPCs that are reconciled at the same time.
const CONCURRENCY: u16 = 4;

pub(crate) async fn run(context: Arc<Network>) {
    Queue::new(&context.vpcs).run(CONCURRENCY, reconcile, context).await;
}

async fn reconcile(vpc: Arc<VirtualPrivateCloud>, context: Arc<Network>) -> Result<Action> {
    let namespace = vpc.namespace().unwrap_or_default();
    let vpcs = Api::<VirtualPrivateCloud>::namespaced(context.base.client.clone(), &namespace);
    let Some(vpc) = get(&vpcs, &vpc.name_any()).await? else { return Ok(Action::await_change()) };
    let mut status = vpc.status.clone().unwrap_or_default();
    let now = context.base.now();
    conditions::set(&mut status.conditions, READY, &usable(&vpc.metadata), vpc.metadata.generation, now);
    report_status(&context.base, &vpcs, &vpc, &status, is_failure).await?;
    Ok(Action::await_change())
}
