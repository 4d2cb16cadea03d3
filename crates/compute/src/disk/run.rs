//! The effects: watch, and carry out the plan.

use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::{Disk, DiskImage, VirtualMachine};
use evroc_api::infra::{Host, Volume};
use evroc_api::{COMPUTE_FINALIZER, deletion};
use evroc_controller::{Change, Error, Queue, Result, add_finalizer, api_error, get, remove_finalizer, report_status};
use evroc_placement::may_make_room;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::observe::{Observed, observe};
use super::plan::{Step, plan};
use super::status::{is_failure, status};
use crate::context::{Compute, WAITING};

/// Disks that are reconciled at the same time. Fewer lets many that come together wait for each other's writes.
const CONCURRENCY: u16 = 8;

/// Runs the controller until the process ends.
pub async fn run(context: Arc<Compute>) {
    let by_image = context.disks_by_image.clone();
    let for_hosts = context.disks_waiting.clone();
    let queue = Queue::new(&context.disks)
        .owns(&context.volumes)
        .on(&context.vms, users_change)
        .on(&context.images, move |change: &Change<DiskImage>| {
            change.both().last().map(|image| by_image.references(&image.name_any())).unwrap_or_default()
        })
        .on(
            &context.hosts,
            move |change: &Change<Host>| {
                if may_make_room(change) { for_hosts.references(WAITING) } else { vec![] }
            },
        );
    queue.run(CONCURRENCY, reconcile, context).await;
}

/// The disks that a virtual machine begins or ceases to name.
pub(super) fn users_change(change: &Change<VirtualMachine>) -> Vec<ObjectRef<Disk>> {
    if !change.differs(|vm| vm.spec.disk_refs.clone()) {
        return vec![];
    }
    let mut disks: Vec<ObjectRef<Disk>> = vec![];
    for vm in change.both() {
        let namespace = vm.namespace().unwrap_or_default();
        let named = vm.spec.disk_refs.iter().map(|disk| ObjectRef::new(&disk.name).within(&namespace));
        disks.extend(named.filter(|disk| !disks.contains(disk)).collect::<Vec<_>>());
    }
    disks
}

async fn reconcile(disk: Arc<Disk>, context: Arc<Compute>) -> Result<Action> {
    let namespace = disk.namespace().unwrap_or_default();
    let Some(observed) = observe(&context, &namespace, &disk.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let api = Api::<Disk>::namespaced(context.base.client.clone(), &namespace);
    let now = context.base.now();
    let steps = plan(&observed);
    let is_last = steps.contains(&Step::RemoveFinalizer)
        && deletion::waits_for(&observed.disk.metadata, &[COMPUTE_FINALIZER], &[]).is_none();
    if !is_last && report_status(&context.base, &api, &observed.disk, &status(&observed, now), is_failure).await? {
        return Ok(Action::requeue(Duration::ZERO));
    }
    for step in steps {
        carry_out(&context, &api, &observed, step).await?;
    }
    Ok(Action::await_change())
}

async fn carry_out(context: &Compute, disks: &Api<Disk>, observed: &Observed, step: Step) -> Result<()> {
    let disk = &observed.disk;
    let (namespace, name) = (disk.namespace().unwrap_or_default(), disk.name_any());
    let volumes = Api::<Volume>::namespaced(context.base.client.clone(), &namespace);
    match step {
        Step::AddFinalizer => add_finalizer(disks, disk, COMPUTE_FINALIZER).await,
        // An object that the informer does not know yet must not be missed: neither a volume nor a virtual machine that has just named it.
        Step::RemoveFinalizer => {
            is_unused(context, &namespace, &name).await?;
            match get(&volumes, &name).await? {
                None => remove_finalizer(disks, disk, COMPUTE_FINALIZER).await,
                Some(_) => Err(Error::Changed(format!("remove {name}"))),
            }
        }
        Step::DeleteVolume => {
            is_unused(context, &namespace, &name).await?;
            match &observed.volume {
                Some(volume) => context.volumes.delete(&volumes, volume).await,
                None => Ok(()),
            }
        }
    }
}

/// Reads afresh that no virtual machine names the disk. One that comes to name it later finds that it is being deleted.
async fn is_unused(context: &Compute, namespace: &str, name: &str) -> Result<()> {
    let vms = Api::<VirtualMachine>::namespaced(context.base.client.clone(), namespace);
    let vms = vms.list(&ListParams::default()).await.map_err(api_error("list virtual machines"))?;
    match vms.items.iter().any(|vm| vm.spec.disk_refs.iter().any(|disk| disk.name == name)) {
        true => Err(Error::Changed(format!("delete {name}"))),
        false => Ok(()),
    }
}
