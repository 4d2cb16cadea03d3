//! The effects: watch, and carry out the plan.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::{
    Disk, PlacementGroup, VMNetworkStatus, VMVirtualResources, VirtualMachine, VirtualMachineStatus,
};
use evroc_api::infra::{Host, Machine, MachineSpec, SPREAD_FIELD, Volume, machine_name};
use evroc_api::networking::{Subnet, VirtualPrivateCloud};
use evroc_api::{COMPUTE_FINALIZER, deletion};
use evroc_controller::{
    Change, Error, Index, Kind, Queue, Result, add_finalizer, api_error, owned_by, remove_finalizer, report_status,
    write_status,
};
use evroc_placement::may_make_room;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::observe::{Observed, observe};
use super::plan::{Step, epoch, plan};
use super::status::{is_failure, status};
use super::volumes;
use crate::context::{Compute, WAITING, allowed_more, key};

/// Virtual machines that are reconciled at the same time. Room on hosts and addresses are taken in the store, so that two which choose the
/// same do not both get it. Fewer lets many that start together wait for each other's writes; more has them choose the same more often.
const CONCURRENCY: u16 = 8;

/// Runs the controller until the process ends.
pub async fn run(context: Arc<Compute>) {
    let (by_disk, by_volume) = (context.vms_by_disk.clone(), context.vms_by_disk.clone());
    let (by_profile, by_vpc) = (context.vms_by_profile.clone(), context.vms_by_namespace.clone());
    let by_subnet = by_vpc.clone();
    let (for_hosts, for_machines) = (context.vms_waiting.clone(), context.vms_waiting.clone());
    let (for_replicas, for_addresses, for_volumes) = (for_hosts.clone(), for_hosts.clone(), for_hosts.clone());
    let by_group = context.vms_by_group.clone();
    let (book, for_quotas) = (context.book.clone(), for_hosts.clone());
    let queue = Queue::new(&context.vms)
        .owns(&context.machines)
        .on(&context.disks, move |change: &Change<Disk>| of_disk(&by_disk, change))
        .on(&context.volumes, move |change: &Change<Volume>| of_disk(&by_volume, change))
        .on(&context.groups, move |change: &Change<PlacementGroup>| {
            // What a virtual machine needs to know of its group: that it exists, and its zone.
            let of = |group: &PlacementGroup| {
                let given = group.status.as_ref().and_then(|status| status.placement.clone());
                (group.uid(), group.spec.clone(), given)
            };
            let is_so = change.new.is_none() || change.differs(of);
            let group = change.both().last().filter(|_| is_so);
            group
                .map(|group| by_group.references(&key(&group.namespace().unwrap_or_default(), &group.name_any())))
                .unwrap_or_default()
        })
        .on(&context.profiles, move |change: &Change<VMVirtualResources>| {
            change.both().last().map(|profile| by_profile.references(&profile.name_any())).unwrap_or_default()
        })
        // Objects of a resource group matter to its own virtual machines only, and its status to none.
        .on(&context.vpcs, move |change: &Change<VirtualPrivateCloud>| {
            let of = |vpc: &VirtualPrivateCloud| (vpc.uid(), vpc.metadata.generation);
            if change.differs(of) { in_namespace(&by_vpc, change) } else { vec![] }
        })
        .on(&context.subnets, move |change: &Change<Subnet>| {
            let of = |subnet: &Subnet| (subnet.uid(), subnet.metadata.generation);
            if change.differs(of) { in_namespace(&by_subnet, change) } else { vec![] }
        })
        // Room for those that wait for it: a host that has more, or something on a host that was removed, in whatever resource group.
        .on(
            &context.hosts,
            move |change: &Change<Host>| {
                if may_make_room(change) { for_hosts.references(WAITING) } else { vec![] }
            },
        )
        .on(&context.quotas, move |change| allowed_more(&book, &for_quotas, change))
        .on(&context.machines, move |change| removed(&for_machines, change))
        .on(&context.volumes, move |change| removed(&for_volumes, change))
        .on(&context.replicas, move |change| removed(&for_replicas, change))
        .on(&context.vms, move |change| removed(&for_addresses, change));
    queue.run(CONCURRENCY, reconcile, context).await;
}

/// The virtual machines that name the disk of this name, whose volume has the same name.
fn of_disk<K: Kind>(by_disk: &Index<VirtualMachine>, change: &Change<K>) -> Vec<ObjectRef<VirtualMachine>> {
    let Some(object) = change.both().last() else { return vec![] };
    by_disk.references(&key(&object.namespace().unwrap_or_default(), &object.name_any()))
}

fn in_namespace<K: Kind>(index: &Index<VirtualMachine>, change: &Change<K>) -> Vec<ObjectRef<VirtualMachine>> {
    let namespace = change.both().last().and_then(ResourceExt::namespace);
    namespace.map(|namespace| index.references(&namespace)).unwrap_or_default()
}

fn removed<K: Kind>(waiting: &Index<VirtualMachine>, change: &Change<K>) -> Vec<ObjectRef<VirtualMachine>> {
    if change.new.is_none() { waiting.references(WAITING) } else { vec![] }
}

async fn reconcile(vm: Arc<VirtualMachine>, context: Arc<Compute>) -> Result<Action> {
    let namespace = vm.namespace().unwrap_or_default();
    let Some(observed) = observe(&context, &namespace, &vm.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let api = Api::<VirtualMachine>::namespaced(context.base.client.clone(), &namespace);
    let now = context.base.now();
    let steps = plan(&observed, now);
    let is_last = steps.contains(&Step::RemoveFinalizer)
        && deletion::waits_for(&observed.vm.metadata, &[COMPUTE_FINALIZER], &[]).is_none();
    if !is_last && report_status(&context.base, &api, &observed.vm, &status(&observed, now), is_failure).await? {
        return Ok(Action::requeue(Duration::ZERO));
    }
    let mut next = Action::await_change();
    for step in steps {
        match step {
            Step::LookAgain(pause) => next = Action::requeue(pause),
            step => carry_out(&context, &api, &observed, step).await?,
        }
    }
    Ok(next)
}

async fn carry_out(context: &Compute, vms: &Api<VirtualMachine>, observed: &Observed, step: Step) -> Result<()> {
    let vm = &observed.vm;
    let machines = Api::<Machine>::namespaced(context.base.client.clone(), &vm.namespace().unwrap_or_default());
    match step {
        Step::AddFinalizer => add_finalizer(vms, vm, COMPUTE_FINALIZER).await,
        Step::RemoveFinalizer => {
            // Its disks can be another's afterwards: what the informer does not know yet must not be missed.
            let own = format!("spec.virtualMachineUid={}", vm.uid().unwrap_or_default());
            let left = machines.list(&ListParams::default().fields(&own)).await.map_err(api_error("list machines"))?;
            match left.items.is_empty() {
                true => remove_finalizer(vms, vm, COMPUTE_FINALIZER).await,
                false => Err(Error::Changed(format!("remove {}", vm.name_any()))),
            }
        }
        Step::AssignAddress(address) => write_status(vms, vm, &with_address(observed, address)).await.map(|_| ()),
        Step::Bind(_) => volumes::bind(context, observed).await,
        Step::Release(volumes) => volumes::release(context, observed, &volumes).await,
        Step::Keep(volumes) => volumes::keep(context, observed, &volumes).await,
        Step::CreateMachine(spec) => create(context, vms, &machines, observed, *spec).await,
        Step::DeleteMachine => {
            for machine in &observed.machines {
                context.machines.delete(&machines, machine).await?;
            }
            Ok(())
        }
        Step::LookAgain(_) => Ok(()),
    }
}

/// The epoch is raised first: two who decide the same at once cannot both write it, and none is ever used twice.
async fn create(
    context: &Compute,
    vms: &Api<VirtualMachine>,
    machines: &Api<Machine>,
    observed: &Observed,
    spec: MachineSpec,
) -> Result<()> {
    let (vm, host) = (&observed.vm, spec.host_name.clone());
    let mut status = vm.status.clone().unwrap_or_default();
    status.epoch = Some(spec.epoch.max(epoch(observed).unwrap_or(0)));
    // The events of a start are those of its states.
    write_status(vms, vm, &status).await?;
    let now = context.base.now();
    match context.machines.create_or_adopt(machines, &machine(vm, spec)).await {
        Err(Error::Full { message, .. }) => {
            context.book.refused(&vm.uid().unwrap_or_default(), &host, &message, now);
            Err(Error::Changed(format!("place {}", vm.name_any())))
        }
        // The place of the placement group on this host is another's.
        Err(Error::Held { field, message, .. }) if field == SPREAD_FIELD => {
            context.book.refused(&vm.uid().unwrap_or_default(), &host, &message, now);
            Err(Error::Changed(format!("place {}", vm.name_any())))
        }
        Err(Error::Refused { message, .. }) => {
            context.refusals.remember(vm, &message, now);
            Err(Error::Changed(format!("create the machine of {}", vm.name_any())))
        }
        other => other,
    }
}

fn with_address(observed: &Observed, address: Ipv4Addr) -> VirtualMachineStatus {
    let mut status = observed.vm.status.clone().unwrap_or_default();
    let networking = status.networking.get_or_insert_with(VMNetworkStatus::default);
    networking.private_ipv4_address = Some(address.to_string());
    status
}

/// The host's finalizer is on a machine from the start, so that no guest is forgotten.
fn machine(vm: &VirtualMachine, spec: MachineSpec) -> Machine {
    let mut machine = Machine::new(&machine_name(&vm.name_any(), spec.epoch), spec);
    machine.metadata.owner_references = owned_by(vm);
    machine.metadata.finalizers = Some(vec![evroc_api::NODE_FINALIZER.into()]);
    machine
}
