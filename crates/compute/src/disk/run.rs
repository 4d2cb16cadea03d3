//! The effects: watch, and carry out the plan.

use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::{Disk, DiskImage, VirtualMachine};
use evroc_api::infra::{Host, Volume, VolumeSpec};
use evroc_api::{COMPUTE_FINALIZER, deletion};
use evroc_controller::{
    Change, Error, Queue, Result, add_finalizer, api_error, get, owned_by, remove_finalizer, report_status,
};
use evroc_placement::may_make_room;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::observe::{Observed, observe};
use super::plan::{Step, plan};
use super::status::{is_failure, status};
use crate::context::{Compute, WAITING, allowed_more};

/// Disks that are reconciled at the same time. Those of one resource group are placed one after the other: a disk follows its siblings, and two
/// siblings that are placed at once would not see each other. Fewer lets the disks of many groups wait for each other's writes.
const CONCURRENCY: u16 = 8;
/// How long to wait for a host that the store refused a moment ago, or for a rule that refused the volume.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Runs the controller until the process ends.
pub async fn run(context: Arc<Compute>) {
    let by_image = context.disks_by_image.clone();
    let (for_hosts, for_volumes) = (context.disks_waiting.clone(), context.disks_waiting.clone());
    let (book, for_quotas) = (context.book.clone(), for_hosts.clone());
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
        )
        .on(&context.quotas, move |change| allowed_more(&book, &for_quotas, change))
        .on(
            &context.volumes,
            move |change: &Change<Volume>| {
                if change.new.is_none() { for_volumes.references(WAITING) } else { vec![] }
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
    let is_placed = context.volumes.get(Some(&namespace), &disk.name_any()).is_some();
    let _turn = if is_placed { None } else { Some(context.placing.of(&namespace).await) };
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
    // Nothing else wakes it then.
    let was_refused = observed.refused.is_some() || observed.hosts.iter().any(|host| host.refused.is_some());
    Ok(if was_refused { Action::requeue(AFTER_REFUSAL) } else { Action::await_change() })
}

async fn carry_out(context: &Compute, disks: &Api<Disk>, observed: &Observed, step: Step) -> Result<()> {
    let disk = &observed.disk;
    let (namespace, name) = (disk.namespace().unwrap_or_default(), disk.name_any());
    let volumes = Api::<Volume>::namespaced(context.base.client.clone(), &namespace);
    match step {
        Step::AddFinalizer => add_finalizer(disks, disk, COMPUTE_FINALIZER).await,
        // An object that the informer does not know yet must not be missed: neither a volume nor a virtual machine that has just named it.
        Step::RemoveFinalizer => match get(&volumes, &name).await? {
            None => remove_finalizer(disks, disk, COMPUTE_FINALIZER).await,
            Some(_) => Err(Error::Changed(format!("remove {name}"))),
        },
        Step::DeleteVolume => {
            let vms = Api::<VirtualMachine>::namespaced(context.base.client.clone(), &namespace);
            let vms = vms.list(&ListParams::default()).await.map_err(api_error("list virtual machines"))?;
            if vms.items.iter().any(|vm| vm.spec.disk_refs.iter().any(|disk| disk.name == name)) {
                return Err(Error::Changed(format!("delete the volume of {name}")));
            }
            match &observed.volume {
                Some(volume) => context.volumes.delete(&volumes, volume).await,
                None => Ok(()),
            }
        }
        Step::CreateVolume(spec) => create(context, &volumes, disk, spec).await,
    }
}

async fn create(context: &Compute, volumes: &Api<Volume>, disk: &Disk, spec: VolumeSpec) -> Result<()> {
    let (host, now) = (spec.host_name.clone(), context.base.now());
    match context.volumes.create_or_adopt(volumes, &volume(disk, spec)).await {
        Err(Error::Full { message, .. }) => {
            context.book.refused(&disk.uid().unwrap_or_default(), &host, &message, now);
            Err(Error::Changed(format!("place {}", disk.name_any())))
        }
        Err(Error::Refused { message, .. }) => {
            context.refusals.remember(disk, &message, now);
            Err(Error::Changed(format!("create the volume of {}", disk.name_any())))
        }
        other => other,
    }
}

/// The volume of a disk has its name; the host's finalizer is on it from the start, so that no data is forgotten.
fn volume(disk: &Disk, spec: VolumeSpec) -> Volume {
    let mut volume = Volume::new(&disk.name_any(), spec);
    volume.metadata.owner_references = owned_by(disk);
    volume.metadata.finalizers = Some(vec![evroc_api::NODE_FINALIZER.into()]);
    volume
}
