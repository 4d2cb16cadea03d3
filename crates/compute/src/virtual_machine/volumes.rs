//! The effects on volumes: make, remove what was never used, and keep for good.

use evroc_api::compute::Disk;
use evroc_api::infra::{Volume, VolumeSpec};
use evroc_controller::{Error, Result, get, owned_by};
use kube::ResourceExt;
use kube::api::Api;

use super::observe::{Observed, observe};
use super::plan::{Step, plan};
use crate::context::Compute;

/// Makes the volumes of a virtual machine. One virtual machine of a resource group at a time, and decided again with what the last one
/// took.
pub(super) async fn bind(context: &Compute, before: &Observed) -> Result<()> {
    let (namespace, name) = (before.vm.namespace().unwrap_or_default(), before.vm.name_any());
    let _turn = context.placing.of(&namespace).await;
    let Some(observed) = observe(context, &namespace, &name).await? else { return Ok(()) };
    let steps = plan(&observed, context.base.now());
    let Some(disks) = steps.into_iter().find_map(|step| if let Step::Bind(disks) = step { Some(disks) } else { None })
    else {
        return Err(Error::Changed(format!("place the disks of {name}")));
    };
    let api = Api::<Disk>::namespaced(context.base.client.clone(), &namespace);
    for (disk, spec) in disks {
        // A disk that is being deleted waits for those that name it, from now on, and one that is gone is not made again.
        let known = observed.disks.iter().find(|it| it.name == disk).and_then(|it| it.disk.as_ref()?.uid());
        let found = get(&api, &disk).await?.filter(|found| found.uid() == known);
        match found.filter(|found| found.metadata.deletion_timestamp.is_none()) {
            Some(found) => create(context, &observed, &found, spec).await?,
            None => return Err(Error::Changed(format!("make the volume of {disk}"))),
        }
    }
    Ok(())
}

async fn create(context: &Compute, observed: &Observed, disk: &Disk, spec: VolumeSpec) -> Result<()> {
    let volumes = Api::<Volume>::namespaced(context.base.client.clone(), &disk.namespace().unwrap_or_default());
    let (host, now) = (spec.host_name.clone(), context.base.now());
    match context.volumes.create_or_adopt(&volumes, &volume(disk, spec)).await {
        Err(Error::Full { message, .. }) => {
            context.book.refused(&observed.vm.uid().unwrap_or_default(), &host, &message, now);
            Err(Error::Changed(format!("place {}", disk.name_any())))
        }
        Err(Error::Refused { message, .. }) => {
            context.refusals.remember(disk, &message, now);
            Err(Error::Changed(format!("create the volume of {}", disk.name_any())))
        }
        other => other,
    }
}

/// Removes volumes of which the host has no data: exactly as they were when that was decided.
pub(super) async fn release(context: &Compute, observed: &Observed, disks: &[String]) -> Result<()> {
    for volume in provisional(observed, disks) {
        let api = Api::<Volume>::namespaced(context.base.client.clone(), &volume.namespace().unwrap_or_default());
        context.volumes.delete_unchanged(&api, volume).await?;
    }
    Ok(())
}

/// Says of volumes that they are used from now on: exactly as they were when that was decided.
pub(super) async fn keep(context: &Compute, observed: &Observed, disks: &[String]) -> Result<()> {
    for volume in provisional(observed, disks) {
        let api = Api::<Volume>::namespaced(context.base.client.clone(), &volume.namespace().unwrap_or_default());
        let mut kept = volume.clone();
        kept.spec.provisional = false;
        context.volumes.replace(&api, &kept).await?;
    }
    Ok(())
}

fn provisional<'a>(observed: &'a Observed, disks: &'a [String]) -> impl Iterator<Item = &'a Volume> {
    let volumes =
        observed.disks.iter().filter(|disk| disks.contains(&disk.name)).filter_map(|disk| disk.volume.as_ref());
    volumes.filter(|volume| volume.spec.provisional)
}

/// The volume of a disk has its name; the host's finalizer is on it from the start, so that no data is forgotten.
fn volume(disk: &Disk, spec: VolumeSpec) -> Volume {
    let mut volume = Volume::new(&disk.name_any(), spec);
    volume.metadata.owner_references = owned_by(disk);
    volume.metadata.finalizers = Some(vec![evroc_api::NODE_FINALIZER.into()]);
    volume
}
