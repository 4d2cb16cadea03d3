//! The effects: watch, and carry out what was planned.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use evroc_api::compute::{
    Disk, VMNetworkStatus, VMVirtualResources, VirtualMachine, VirtualMachineStatus, VirtualMachineStatusType as State,
};
use evroc_api::infra::{Host, Machine, MachineSpec};
use evroc_api::networking::{Subnet, VirtualPrivateCloud};
use evroc_api::{COMPUTE_FINALIZER, deletion};
use evroc_controller::{
    Context, Result, add_finalizer, controller, create_or_adopt, delete_if_present, drive, owned_by, remove_finalizer,
    retry, write_status,
};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;

use super::observe::{Observed, observe};
use super::plan::{Step, plan};
use super::status::status;

/// Runs the controller until the process ends.
pub async fn run(context: Context) {
    let client = context.client.clone();
    let all = watcher::Config::default;
    let controller = controller(Api::<VirtualMachine>::all(client.clone()), all());
    let vms = controller.store();
    let every_vm = move || vms.state().into_iter().map(|vm| ObjectRef::from_obj(&*vm)).collect::<Vec<_>>();
    let (for_hosts, for_profiles) = (every_vm.clone(), every_vm.clone());
    // What lies in a resource group matters to its own virtual machines only.
    let in_group =
        move |group: Option<String>| every_vm().into_iter().filter(move |vm| vm.namespace == group).collect::<Vec<_>>();
    let (by_disk, by_vpc, by_subnet) = (in_group.clone(), in_group.clone(), in_group);
    let vms = controller.store();
    let unschedulable = move || {
        let state = |vm: &VirtualMachine| vm.status.as_ref().and_then(|s| s.virtual_machine_status);
        let vms = vms.state().into_iter().filter(|vm| state(vm) == Some(State::ErrorUnschedulable));
        vms.map(|vm| ObjectRef::from_obj(&*vm)).collect::<Vec<_>>()
    };
    let stream = controller
        .owns(Api::<Machine>::all(client.clone()), all())
        // A machine that goes, in whatever resource group, may make room.
        .watches(Api::<Machine>::all(client.clone()), all(), move |_| unschedulable())
        .watches(Api::<Disk>::all(client.clone()), all(), move |disk| by_disk(disk.namespace()))
        .watches(Api::<Host>::all(client.clone()), all(), move |_| for_hosts())
        .watches(Api::<VMVirtualResources>::all(client.clone()), all(), move |_| for_profiles())
        .watches(Api::<VirtualPrivateCloud>::all(client.clone()), all(), move |vpc| by_vpc(vpc.namespace()))
        .watches(Api::<Subnet>::all(client), all(), move |subnet| by_subnet(subnet.namespace()))
        // One at a time: what is left of a host's memory is read and then taken, and two that do so at once both take the last.
        .with_config(Config::default().concurrency(1))
        .run(reconcile, retry, Arc::new(context));
    drive(stream.boxed()).await;
}

async fn reconcile(vm: Arc<VirtualMachine>, context: Arc<Context>) -> Result<Action> {
    let namespace = vm.namespace().unwrap_or_default();
    let Some(observed) = observe(&context.client, &namespace, &vm.name_any()).await? else {
        return Ok(Action::await_change());
    };
    let api = Api::<VirtualMachine>::namespaced(context.client.clone(), &namespace);
    let steps = plan(&observed, context.now());
    let is_last = steps.contains(&Step::RemoveFinalizer)
        && deletion::waits_for(&observed.vm.metadata, &[COMPUTE_FINALIZER], &[]).is_none();
    if !is_last && write_status(&api, &observed.vm, &status(&observed, context.now())).await? {
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

async fn carry_out(context: &Context, vms: &Api<VirtualMachine>, observed: &Observed, step: Step) -> Result<()> {
    let machines = Api::<Machine>::namespaced(context.client.clone(), &observed.vm.namespace().unwrap_or_default());
    match step {
        Step::AddFinalizer => add_finalizer(vms, &observed.vm, COMPUTE_FINALIZER).await,
        Step::RemoveFinalizer => remove_finalizer(vms, &observed.vm, COMPUTE_FINALIZER).await,
        Step::AssignAddress(address) => {
            write_status(vms, &observed.vm, &with_address(observed, address)).await.map(|_| ())
        }
        Step::CreateMachine(spec) => create_or_adopt(&machines, &machine(&observed.vm, *spec)).await,
        Step::DeleteMachine => match &observed.machine {
            Some(machine) => delete_if_present(&machines, machine).await,
            None => Ok(()),
        },
        Step::LookAgain(_) => Ok(()),
    }
}

fn with_address(observed: &Observed, address: Ipv4Addr) -> VirtualMachineStatus {
    let mut status = observed.vm.status.clone().unwrap_or_default();
    let networking = status.networking.get_or_insert_with(VMNetworkStatus::default);
    networking.private_ipv4_address = Some(address.to_string());
    status
}

/// The machine of a VM has its name; the host's finalizer is on it from the start, so that no guest is forgotten.
fn machine(vm: &VirtualMachine, spec: MachineSpec) -> Machine {
    let mut machine = Machine::new(&vm.name_any(), spec);
    machine.metadata.owner_references = owned_by(vm);
    machine.metadata.finalizers = Some(vec![evroc_api::NODE_FINALIZER.into()]);
    machine
}
