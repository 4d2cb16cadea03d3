//! The context of this crate's controllers.

use std::sync::Arc;

use evroc_api::compute::VirtualMachine;
use evroc_api::conditions::Verdict;
use evroc_api::deletion;
use evroc_api::iam::ResourceGroup;
use evroc_api::networking::{Subnet, VirtualPrivateCloud};
use evroc_controller::{Context, Index, Informer, Informers};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::forget::ForgetGroup;

/// The context of resource groups, VPCs and subnets.
pub(crate) struct Network {
    /// API and clock.
    pub base: Context,
    /// Removes a group's data outside the API.
    pub forget: Arc<dyn ForgetGroup>,
    pub groups: Informer<ResourceGroup>,
    pub namespaces: Informer<Namespace>,
    pub vpcs: Informer<VirtualPrivateCloud>,
    pub subnets: Informer<Subnet>,
    pub vms: Informer<VirtualMachine>,
    /// Virtual machines that have an address, by namespace.
    pub vms_with_address: Index<VirtualMachine>,
}

impl Network {
    pub fn new(base: Context, informers: &Informers, forget: Arc<dyn ForgetGroup>) -> Self {
        let vms = informers.of::<VirtualMachine>();
        Self {
            base,
            forget,
            groups: informers.of(),
            namespaces: informers.of(),
            vpcs: informers.of(),
            subnets: informers.of(),
            vms_with_address: vms
                .index(|vm: &VirtualMachine| address(vm).and_then(|_| vm.namespace()).into_iter().collect()),
            vms,
        }
    }

    /// Waits until everything that exists has been read once.
    pub async fn ready(&self) {
        self.groups.ready().await;
        self.namespaces.ready().await;
        self.vpcs.ready().await;
        self.subnets.ready().await;
        self.vms.ready().await;
    }
}

/// The private address of a virtual machine.
pub(crate) fn address(vm: &VirtualMachine) -> Option<&str> {
    vm.status.as_ref()?.networking.as_ref()?.private_ipv4_address.as_deref()
}

/// Whether virtual machines can use a network. Until it is removed, a deleted network is used by those that are in it; then it is
/// made again.
pub(crate) fn usable(metadata: &ObjectMeta) -> Verdict {
    match deletion::waits_for(metadata, &[], &[]) {
        Some(blocker) => Verdict::no("Deleting", format!("it is being deleted and then made again: {blocker}")),
        None => Verdict::yes("Ready", "virtual machines can use it"),
    }
}

/// Whether the reason why a network is not ready is a failure and not a step on its way.
pub(crate) fn is_failure(reason: &str) -> bool {
    reason != "Deleting"
}
