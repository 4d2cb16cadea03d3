//! Everything that matters for one disk.

use evroc_api::compute::{Disk, DiskImage, VirtualMachine};
use evroc_api::infra::Volume;
use evroc_controller::{Result, get};
use kube::ResourceExt;
use kube::api::Api;

use crate::context::{Compute, key};

/// A disk and what surrounds it, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The disk.
    pub disk: Disk,
    /// The image that it names, if there is one of that name.
    pub image: Option<DiskImage>,
    /// The names of all images, for the refusal.
    pub image_names: Vec<String>,
    /// The volume behind it.
    pub volume: Option<Volume>,
    /// The zone of the volume's host.
    pub zone: Option<String>,
    /// The zones of all hosts.
    pub zones: Vec<String>,
    /// The virtual machines that name it.
    pub users: Vec<VirtualMachine>,
    /// The reason why the API refused its volume for good.
    pub refused: Option<String>,
}

/// Reads everything for one disk; `None` if it does not exist.
pub async fn observe(context: &Compute, namespace: &str, name: &str) -> Result<Option<Observed>> {
    let disks = Api::<Disk>::namespaced(context.base.client.clone(), namespace);
    let Some(disk) = get(&disks, name).await? else { return Ok(None) };
    context.book.settle().await?;
    let image = disk.spec.disk_image.as_ref();
    let image = image.and_then(|image| context.images.get(None, &image.disk_image_ref.name));
    let mut image_names: Vec<String> = match image {
        Some(_) => vec![],
        None => context.images.all().iter().map(|image| image.name_any()).collect(),
    };
    image_names.sort_unstable();
    let volume = context.volumes.get(Some(namespace), name).map(|volume| (*volume).clone());
    let host = volume.as_ref().and_then(|volume| context.book.host(&volume.spec.host_name));
    Ok(Some(Observed {
        image: image.map(|image| (*image).clone()),
        image_names,
        zone: host.and_then(|host| host.spec.zone.clone()),
        zones: context.book.zones(),
        volume,
        users: context.vms_by_disk.get(&key(namespace, name)).iter().map(|vm| (**vm).clone()).collect(),
        refused: context.refusals.of(&disk, context.base.now()),
        disk,
    }))
}
