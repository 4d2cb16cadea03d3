//! The effects: watch, and carry out what was planned.

use std::sync::Arc;

use evroc_api::compute::{Disk, DiskImage, VirtualMachine};
use evroc_api::infra::{Host, Volume, VolumeSpec};
use evroc_api::{COMPUTE_FINALIZER, deletion};
use evroc_controller::{
    Context, Result, add_finalizer, controller, create_or_adopt, delete_if_present, drive, owned_by, remove_finalizer,
    retry, write_status,
};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use super::observe::{Observed, observe};
use super::plan::{Step, plan};
use super::status::status;

/// Runs the controller until the process ends.
pub async fn run(context: Context) {
    let client = context.client.clone();
    let all = watcher::Config::default;
    let controller = controller(Api::<Disk>::all(client.clone()), all());
    let disks = controller.store();
    let every_disk = move || disks.state().into_iter().map(|d| ObjectRef::from_obj(&*d)).collect::<Vec<_>>();
    let (for_images, for_hosts) = (every_disk.clone(), every_disk);
    let disks = controller.store();
    let of_vm = move |vm: VirtualMachine| disks_of(&vm, &disks.state());
    let stream = controller
        .owns(Api::<Volume>::all(client.clone()), all())
        .watches(Api::<VirtualMachine>::all(client.clone()), all(), of_vm)
        .watches(Api::<DiskImage>::all(client.clone()), all(), move |_| for_images())
        .watches(Api::<Host>::all(client), all(), move |_| for_hosts())
        .run(reconcile, retry, Arc::new(context));
    drive(stream.boxed()).await;
}

/// The disks that a VM names, and those that say that it uses them: it may have let one go.
pub(super) fn disks_of(vm: &VirtualMachine, disks: &[Arc<Disk>]) -> Vec<ObjectRef<Disk>> {
    let says_so = |disk: &Disk| {
        disk.namespace() == vm.namespace()
            && disk.status.iter().flat_map(|s| &s.disk_usage).any(|usage| usage.vm == vm.name_any())
    };
    let namespace = vm.namespace().unwrap_or_default();
    let named = vm.spec.disk_refs.iter().map(|d| ObjectRef::new(&d.name).within(&namespace));
    named.chain(disks.iter().filter(|d| says_so(d)).map(|d| ObjectRef::from_obj(&**d))).collect()
}

async fn reconcile(disk: Arc<Disk>, context: Arc<Context>) -> Result<Action> {
    let namespace = disk.namespace().unwrap_or_default();
    let Some(observed) = observe(&context.client, &namespace, &disk.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let api = Api::<Disk>::namespaced(context.client.clone(), &namespace);
    let steps = plan(&observed);
    let is_last = steps.contains(&Step::RemoveFinalizer)
        && deletion::waits_for(&observed.disk.metadata, &[COMPUTE_FINALIZER], &[]).is_none();
    if !is_last && write_status(&api, &observed.disk, &status(&observed, context.now())).await? {
        return Ok(Action::requeue(std::time::Duration::ZERO));
    }
    for step in steps {
        carry_out(&context, &api, &observed, step).await?;
    }
    Ok(Action::await_change())
}

async fn carry_out(context: &Context, disks: &Api<Disk>, observed: &Observed, step: Step) -> Result<()> {
    let volumes = Api::<Volume>::namespaced(context.client.clone(), &observed.disk.namespace().unwrap_or_default());
    match step {
        Step::AddFinalizer => add_finalizer(disks, &observed.disk, COMPUTE_FINALIZER).await,
        Step::RemoveFinalizer => remove_finalizer(disks, &observed.disk, COMPUTE_FINALIZER).await,
        Step::CreateVolume(spec) => create_or_adopt(&volumes, &volume(&observed.disk, spec)).await,
        Step::DeleteVolume => match &observed.volume {
            Some(volume) => delete_if_present(&volumes, volume).await,
            None => Ok(()),
        },
    }
}

/// The volume of a disk has its name; the host's finalizer is on it from the start, so that no data is forgotten.
fn volume(disk: &Disk, spec: VolumeSpec) -> Volume {
    let mut volume = Volume::new(&disk.name_any(), spec);
    volume.metadata.owner_references = owned_by(disk);
    volume.metadata.finalizers = Some(vec![evroc_api::NODE_FINALIZER.into()]);
    volume
}
