//! Everything that matters for one disk.

use evroc_api::compute::{Disk, DiskImage, VirtualMachine};
use evroc_api::infra::{Host, Volume};
use evroc_controller::{Result, api_error, get};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

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
    /// The virtual machines that name it.
    pub users: Vec<VirtualMachine>,
    /// All hosts.
    pub hosts: Vec<Host>,
}

/// Reads everything for one disk; `None` when it is gone.
pub async fn observe(client: &Client, namespace: &str, name: &str) -> Result<Option<Observed>> {
    let Some(disk) = get(&Api::<Disk>::namespaced(client.clone(), namespace), name).await? else { return Ok(None) };
    let everything = ListParams::default();
    let images =
        Api::<DiskImage>::all(client.clone()).list(&everything).await.map_err(api_error("list disk images"))?.items;
    let vms = Api::<VirtualMachine>::namespaced(client.clone(), namespace).list(&everything).await;
    let users = vms
        .map_err(api_error("list virtual machines"))?
        .items
        .into_iter()
        .filter(|vm| vm.spec.disk_refs.iter().any(|d| d.name == name));
    let hosts = Api::<Host>::all(client.clone()).list(&everything).await.map_err(api_error("list hosts"))?.items;
    let wanted = disk.spec.disk_image.as_ref().map(|i| i.disk_image_ref.name.as_str());
    Ok(Some(Observed {
        image: images.iter().find(|i| Some(i.name_any().as_str()) == wanted).cloned(),
        image_names: images.iter().map(ResourceExt::name_any).collect(),
        volume: get(&Api::<Volume>::namespaced(client.clone(), namespace), name).await?,
        users: users.collect(),
        hosts,
        disk,
    }))
}
