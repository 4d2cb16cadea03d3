//! The effects: watch, and carry out the plan.

use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::{PlacementGroup, VirtualMachine};
use evroc_api::infra::{Host, Machine};
use evroc_api::{COMPUTE_FINALIZER, deletion};
use evroc_controller::{Change, Error, Queue, Result, add_finalizer, api_error, remove_finalizer, report_status};
use evroc_placement::may_make_room;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::observe::observe;
use super::plan::{Step, plan};
use super::status::{is_failure, status};
use crate::context::{Compute, WAITING};

/// Placement groups that are reconciled at the same time.
const CONCURRENCY: u16 = 2;

/// Runs the controller until the process ends.
pub async fn run(context: Arc<Compute>) {
    let (for_hosts, vms) = (context.groups_waiting.clone(), context.vms.clone());
    let queue = Queue::new(&context.groups)
        .on(&context.vms, members_change)
        // Its virtual machine is found by its name: a machine that came or went.
        .on(&context.machines, move |change: &Change<Machine>| {
            if change.old.is_some() && change.new.is_some() {
                return vec![];
            }
            let groups = change.both().filter_map(|machine| {
                let vm = vms.get(machine.namespace().as_deref(), machine.spec.virtual_machine.as_deref()?)?;
                group_of(&vm)
            });
            groups.collect()
        })
        .on(
            &context.hosts,
            move |change: &Change<Host>| {
                if may_make_room(change) { for_hosts.references(WAITING) } else { vec![] }
            },
        );
    queue.run(CONCURRENCY, reconcile, context).await;
}

fn group_of(vm: &VirtualMachine) -> Option<ObjectRef<PlacementGroup>> {
    Some(ObjectRef::new(vm.spec.group()?).within(&vm.namespace().unwrap_or_default()))
}

/// The placement groups whose members, or what is shown of them, change with a virtual machine.
fn members_change(change: &Change<VirtualMachine>) -> Vec<ObjectRef<PlacementGroup>> {
    let shown =
        |vm: &VirtualMachine| (group_of(vm), vm.status.as_ref().and_then(|status| status.virtual_machine_status));
    if change.old.is_some() && change.new.is_some() && !change.differs(shown) {
        return vec![];
    }
    let mut groups: Vec<ObjectRef<PlacementGroup>> = change.both().filter_map(group_of).collect();
    groups.dedup();
    groups
}

async fn reconcile(group: Arc<PlacementGroup>, context: Arc<Compute>) -> Result<Action> {
    let (namespace, name) = (group.namespace().unwrap_or_default(), group.name_any());
    let Some(observed) = observe(&context, &namespace, &name).await? else { return Ok(Action::await_change()) };
    let api = Api::<PlacementGroup>::namespaced(context.base.client.clone(), &namespace);
    let step = plan(&observed);
    let is_last = step == Some(Step::RemoveFinalizer)
        && deletion::waits_for(&observed.group.metadata, &[COMPUTE_FINALIZER], &[]).is_none();
    let status = status(&observed, context.base.now());
    if !is_last && report_status(&context.base, &api, &observed.group, &status, is_failure).await? {
        return Ok(Action::requeue(Duration::ZERO));
    }
    match step {
        Some(Step::AddFinalizer) => add_finalizer(&api, &observed.group, COMPUTE_FINALIZER).await?,
        Some(Step::RemoveFinalizer) => {
            // A virtual machine that the informer does not know yet must not be missed.
            let vms = Api::<VirtualMachine>::namespaced(context.base.client.clone(), &namespace);
            let named = ListParams::default().fields(&format!("spec.placementGroup={name}"));
            let members = vms.list(&named).await.map_err(api_error("list virtual machines"))?;
            if !members.items.is_empty() {
                return Err(Error::Changed(format!("remove {name}")));
            }
            remove_finalizer(&api, &observed.group, COMPUTE_FINALIZER).await?;
        }
        None => {}
    }
    Ok(Action::await_change())
}
