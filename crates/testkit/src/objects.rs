//! Objects as users write them, and accessors for tests.

use evroc_api::compute::{Disk, GUEST_READY, PlacementGroup, VirtualMachine, VirtualMachineStatusType};
use evroc_api::conditions::{self, READY};
use evroc_api::run::{Revision, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::platform::DOMAIN;

/// An object from JSON.
///
/// # Panics
/// If it is none of its kind.
pub fn of<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of the kind")
}

/// A disk with an image.
pub fn disk(name: &str, image: &str) -> Disk {
    of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "Disk", "metadata": {"name": name},
        "spec": {"diskImage": {"diskImageRef": {"name": image}}}}))
}

/// A disk without content.
pub fn blank_disk(name: &str, gigabytes: u32) -> Disk {
    of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "Disk", "metadata": {"name": name},
        "spec": {"diskSize": {"amount": gigabytes, "unit": "GB"}}}))
}

/// A placement group.
pub fn placement_group(name: &str) -> PlacementGroup {
    of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "PlacementGroup", "metadata": {"name": name},
        "spec": {"strategy": {"type": "spread"}}}))
}

/// A virtual machine of a placement group, on a disk of its own name.
pub fn member(name: &str, group: &str) -> VirtualMachine {
    let mut vm = virtual_machine(name, &[name]);
    vm.spec.placement_group = Some(group.into());
    vm
}

/// A virtual machine of the smallest profile that boots from the first of its disks.
pub fn virtual_machine(name: &str, disks: &[&str]) -> VirtualMachine {
    virtual_machine_of("test.xs", name, disks)
}

/// A virtual machine of a profile that boots from the first of its disks.
pub fn virtual_machine_of(profile: &str, name: &str, disks: &[&str]) -> VirtualMachine {
    let disks: Vec<Value> =
        disks.iter().enumerate().map(|(index, name)| json!({"name": name, "bootFrom": index == 0})).collect();
    of(json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"running": true, "vmVirtualResourcesRef": {"vmVirtualResourcesRefName": profile}, "diskRefs": disks}}))
}

/// A service of an image in the cloud's registry, for example `demo/hello:v1`.
pub fn service(name: &str, image: &str) -> Service {
    of(json!({"apiVersion": "run.evroclabs.net/v1alpha1", "kind": "Service", "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [{"image": format!("registry.{DOMAIN}/{image}")}]}}}}))
}

/// Objects with conditions.
pub trait HasConditions {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];

    /// Its condition Ready: status, reason, message; empty texts when there is none.
    fn ready(&self) -> (&str, &str, &str) {
        match conditions::get(self.conditions(), READY) {
            Some(ready) => (&ready.status, &ready.reason, &ready.message),
            None => ("", "", ""),
        }
    }

    /// Whether it is Ready.
    fn is_ready(&self) -> bool {
        self.ready().0 == "True"
    }

    /// The reason why it is not Ready.
    fn reason(&self) -> &str {
        self.ready().1
    }

    /// The same in a sentence.
    fn message(&self) -> &str {
        self.ready().2
    }
}

macro_rules! has_conditions {
    ($($kind:ty),*) => {$(
        impl HasConditions for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map_or(&[], |s| s.conditions.as_slice())
            }
        }
    )*};
}

has_conditions!(
    Disk,
    PlacementGroup,
    VirtualMachine,
    Service,
    Revision,
    evroc_api::iam::ResourceGroup,
    evroc_api::networking::Subnet,
    evroc_api::networking::VirtualPrivateCloud
);

/// The state of a virtual machine in one word.
pub fn state(vm: &VirtualMachine) -> Option<VirtualMachineStatusType> {
    vm.status.as_ref()?.virtual_machine_status
}

/// The private address of a virtual machine.
pub fn address(vm: &VirtualMachine) -> Option<String> {
    vm.status.as_ref()?.networking.as_ref()?.private_ipv4_address.clone()
}

/// Whether the guest of a virtual machine is up.
pub fn guest_is_ready(vm: &VirtualMachine) -> bool {
    conditions::is_true(vm.conditions(), GUEST_READY)
}

/// The revision that has all requests.
pub fn serving(service: &Service) -> Option<&str> {
    match service.status.as_ref()?.traffic.as_slice() {
        [all] if all.percent == 100 => Some(&all.revision_name),
        _ => None,
    }
}
