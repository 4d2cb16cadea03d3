//! Everything that matters for one disk.

use std::sync::Arc;

use evroc_api::compute::{Disk, DiskImage, VirtualMachine};
use evroc_api::infra::Volume;
use evroc_controller::{Result, get};
use evroc_placement::HostFacts;
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
    /// The virtual machines that name it.
    pub users: Vec<VirtualMachine>,
    /// The other disks of those, and what they are to be placed with; read only if there is no volume.
    pub siblings: Vec<Sibling>,
    /// The memory that those need on the same host, in bytes; of those that are on none.
    pub memory_bytes: u64,
    /// All hosts; read only if there is no volume.
    pub hosts: Vec<HostFacts>,
    /// The reason why the API refused its volume for good.
    pub refused: Option<String>,
}

/// Another disk of the same virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sibling {
    /// Its volume is on this host.
    Bound(String),
    /// It has no volume yet, and needs this many bytes.
    Unbound(u64),
}

/// Reads everything for one disk; `None` if it does not exist.
pub async fn observe(context: &Compute, namespace: &str, name: &str) -> Result<Option<Observed>> {
    let disks = Api::<Disk>::namespaced(context.base.client.clone(), namespace);
    let Some(disk) = get(&disks, name).await? else { return Ok(None) };
    context.book.settle().await?;
    let now = context.base.now();
    let users = context.vms_by_disk.get(&key(namespace, name));
    let image = image_of(context, &disk);
    let mut image_names: Vec<String> = match image {
        Some(_) => vec![],
        None => context.images.all().iter().map(|image| image.name_any()).collect(),
    };
    image_names.sort_unstable();
    let volume = context.volumes.get(Some(namespace), name).map(|volume| (*volume).clone());
    let host = volume.as_ref().and_then(|volume| context.book.host(&volume.spec.host_name));
    let (siblings, memory_bytes, hosts) = match volume {
        Some(_) => (vec![], 0, vec![]),
        None => (
            siblings(context, namespace, name, &users),
            users.iter().map(|vm| memory(context, vm)).sum(),
            context.book.facts(&disk.uid().unwrap_or_default(), now),
        ),
    };
    Ok(Some(Observed {
        image: image.map(|image| (*image).clone()),
        image_names,
        zone: host.and_then(|host| host.spec.zone.clone()),
        volume,
        users: users.iter().map(|vm| (**vm).clone()).collect(),
        siblings,
        memory_bytes,
        hosts,
        refused: context.refusals.of(&disk, now),
        disk,
    }))
}

fn image_of(context: &Compute, disk: &Disk) -> Option<Arc<DiskImage>> {
    disk.spec.disk_image.as_ref().and_then(|image| context.images.get(None, &image.disk_image_ref.name))
}

fn siblings(context: &Compute, namespace: &str, name: &str, users: &[Arc<VirtualMachine>]) -> Vec<Sibling> {
    let mut names: Vec<&str> = users.iter().flat_map(|vm| &vm.spec.disk_refs).map(|disk| disk.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let others = names.into_iter().filter(|other| *other != name);
    let siblings = others.filter_map(|other| {
        if let Some(volume) = context.volumes.get(Some(namespace), other) {
            return Some(Sibling::Bound(volume.spec.host_name.clone()));
        }
        let disk = context.disks.get(Some(namespace), other)?;
        let image = image_of(context, &disk);
        Some(Sibling::Unbound(super::size::size(&disk, image.as_deref())?.bytes()?))
    });
    siblings.collect()
}

/// The share of a host that a virtual machine without a host will need.
fn memory(context: &Compute, vm: &VirtualMachine) -> u64 {
    let is_on_a_host = vm.uid().is_some_and(|uid| !context.machines_by_owner.references(&uid).is_empty());
    let profile = &vm.spec.vm_virtual_resources_ref.vm_virtual_resources_ref_name;
    let profile = context.profiles.get(None, profile).filter(|_| !is_on_a_host);
    profile.and_then(|profile| profile.spec.memory.bytes()).unwrap_or(0)
}
