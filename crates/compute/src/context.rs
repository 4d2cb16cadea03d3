//! The context of this crate's controllers: the API, and informers with their indexes.

use evroc_api::compute::{
    Disk, DiskImage, PlacementGroup, VMVirtualResources, VirtualMachine, VirtualMachineStatusType as State,
};
use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Host, Machine, Replica, Volume};
use evroc_api::networking::{Subnet, VirtualPrivateCloud};
use evroc_controller::{Change, Context, Index, Informer, Informers, Kind, Refusals};
use evroc_placement::{Book, may_allow_more};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::reasons::PENDING;
use crate::turns::Turns;

/// The key in an index of what waits for a host, or for room on one.
pub(crate) const WAITING: &str = "";

/// The context of disks, virtual machines and placement groups.
pub(crate) struct Compute {
    /// API and clock.
    pub base: Context,
    /// The promises made on each host.
    pub book: Book,
    /// The API's permanent refusals.
    pub refusals: Refusals,
    /// The turns of resource groups to place and make the volumes of a virtual machine: two at a time would take each other's room piece by
    /// piece.
    pub placing: Turns,
    pub vms: Informer<VirtualMachine>,
    pub machines: Informer<Machine>,
    pub disks: Informer<Disk>,
    pub groups: Informer<PlacementGroup>,
    pub volumes: Informer<Volume>,
    pub images: Informer<DiskImage>,
    pub profiles: Informer<VMVirtualResources>,
    pub hosts: Informer<Host>,
    pub quotas: Informer<ResourceQuota>,
    pub replicas: Informer<Replica>,
    pub vpcs: Informer<VirtualPrivateCloud>,
    pub subnets: Informer<Subnet>,
    /// Virtual machines by the disks that they name: see [`key`].
    pub vms_by_disk: Index<VirtualMachine>,
    /// Virtual machines by the profile that they name.
    pub vms_by_profile: Index<VirtualMachine>,
    /// Virtual machines by namespace.
    pub vms_by_namespace: Index<VirtualMachine>,
    /// Virtual machines by the placement group that they name: see [`key`].
    pub vms_by_group: Index<VirtualMachine>,
    /// Virtual machines that wait for room, under [`WAITING`].
    pub vms_waiting: Index<VirtualMachine>,
    /// Machines by the uid of the virtual machine that owns them.
    pub machines_by_owner: Index<Machine>,
    /// Disks by the image that they name.
    pub disks_by_image: Index<Disk>,
    /// Disks and placement groups whose zone has no host, under [`WAITING`].
    pub disks_waiting: Index<Disk>,
    pub groups_waiting: Index<PlacementGroup>,
}

impl Compute {
    pub fn new(base: Context, informers: &Informers, book: Book) -> Self {
        let (vms, machines, disks) =
            (informers.of::<VirtualMachine>(), informers.of::<Machine>(), informers.of::<Disk>());
        let groups = informers.of::<PlacementGroup>();
        Self {
            base,
            book,
            refusals: Refusals::default(),
            placing: Turns::default(),
            vms_by_disk: vms.index(|vm: &VirtualMachine| disks_of(vm).collect()),
            vms_by_profile: vms.index(|vm: &VirtualMachine| {
                vec![vm.spec.vm_virtual_resources_ref.vm_virtual_resources_ref_name.clone()]
            }),
            vms_by_namespace: vms.by_namespace(),
            vms_by_group: vms.index(|vm: &VirtualMachine| group_of(vm).into_iter().collect()),
            vms_waiting: vms.index(|vm: &VirtualMachine| {
                let state = vm.status.as_ref().and_then(|status| status.virtual_machine_status);
                (state == Some(State::ErrorUnschedulable)).then(|| WAITING.to_owned()).into_iter().collect()
            }),
            machines_by_owner: machines.by_owner(),
            disks_by_image: disks.index(|disk: &Disk| {
                disk.spec.disk_image.iter().map(|image| image.disk_image_ref.name.clone()).collect()
            }),
            disks_waiting: disks
                .index(|disk: &Disk| waiting(disk.status.as_ref().map_or(&[], |status| &status.conditions))),
            groups_waiting: groups.index(|group: &PlacementGroup| {
                waiting(group.status.as_ref().map_or(&[], |status| &status.conditions))
            }),
            vms,
            machines,
            disks,
            groups,
            volumes: informers.of(),
            images: informers.of(),
            profiles: informers.of(),
            hosts: informers.of(),
            quotas: informers.of(),
            replicas: informers.of(),
            vpcs: informers.of(),
            subnets: informers.of(),
        }
    }

    /// Waits until all existing objects have been read once: an unknown object must not look as if it did not exist.
    pub async fn ready(&self) {
        self.book.ready().await;
        self.vms.ready().await;
        self.disks.ready().await;
        self.groups.ready().await;
        self.images.ready().await;
        self.profiles.ready().await;
        self.vpcs.ready().await;
        self.subnets.ready().await;
    }
}

/// The keys of those that wait and that a larger quota of their resource group may let in; what was refused before may be tried again.
pub(crate) fn allowed_more<K: Kind>(
    book: &Book,
    waiting: &Index<K>,
    change: &Change<ResourceQuota>,
) -> Vec<ObjectRef<K>> {
    if !may_allow_more(change) {
        return vec![];
    }
    book.forget_refusals();
    let namespace = change.both().last().and_then(ResourceExt::namespace);
    waiting.references(WAITING).into_iter().filter(|one| one.namespace == namespace).collect()
}

/// [`WAITING`] for conditions that wait for a host.
fn waiting(conditions: &[Condition]) -> Vec<String> {
    let is_waiting = conditions::get(conditions, READY).is_some_and(|ready| ready.reason == PENDING);
    is_waiting.then(|| WAITING.to_owned()).into_iter().collect()
}

/// The key of a disk or a placement group in the indexes of virtual machines.
pub(crate) fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// The key of the placement group that a virtual machine names.
pub(crate) fn group_of(vm: &VirtualMachine) -> Option<String> {
    vm.spec.group().map(|group| key(&vm.namespace().unwrap_or_default(), group))
}

/// The keys of the disks that a virtual machine names.
pub(crate) fn disks_of(vm: &VirtualMachine) -> impl Iterator<Item = String> + '_ {
    let namespace = vm.namespace().unwrap_or_default();
    vm.spec.disk_refs.iter().map(move |disk| key(&namespace, &disk.name))
}
