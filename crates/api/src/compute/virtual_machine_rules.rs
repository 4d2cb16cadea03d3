//! The rules of VirtualMachine that its schema cannot say.

use kube::ResourceExt;

use super::{
    MOST_MEMBERS, VMAuthorizedKey, VMNetworkingSettings, VMOSSettings, VMPublicIPv4AddressSettings, VMSSHSettings,
    VirtualMachine, VirtualMachineSpec,
};
use crate::claims::{ChosenBy, Claim};
use crate::ledgers::{self, Limit, MEMBERS, Take};
use crate::names::{LONGEST_LABEL, NameRule};
use crate::rules::{Function, Immutable, KindRules, OfChange, OfWrite, Problem};
use crate::user_data;

impl KindRules for VirtualMachine {
    const NAMES: NameRule = NameRule::label(LONGEST_LABEL, "the name becomes the guest's host name");
    const IMMUTABLE: &'static [Immutable] = &[
        Immutable {
            path: "osSettings.cloudInitUserData",
            message: "cloudInitUserData cannot be changed after the VM is created: make a new VM",
        },
        Immutable { path: "placement.zone", message: "the zone of a VM cannot be changed: make a new VM" },
    ];
    const PROBLEMS: Function<Self, Problem> = Some(|vm| problems(&vm.spec));
    const WARNINGS: OfWrite<Self, String> = Some(warnings);
    const CHANGES_REFUSED: OfChange<Self> = Some(changes_refused);
    const CLAIMS: Function<Self, Claim> = Some(claims);
    const TAKES: Function<Self, Take> = Some(takes);
}

/// Its disks, and its private address in the VPC of its resource group.
fn claims(vm: &VirtualMachine) -> Vec<Claim> {
    let namespace = vm.namespace().unwrap_or_default();
    let disks = vm.spec.disk_refs.iter().enumerate().map(|(index, disk)| Claim {
        key: format!("disk/{namespace}/{}", disk.name),
        field: format!("spec.diskRefs[{index}].name"),
        what: format!("disk \"{}\"", disk.name),
        chosen_by: ChosenBy::User,
    });
    let networking = vm.status.as_ref().and_then(|status| status.networking.as_ref());
    let address = networking.and_then(|it| it.private_ipv4_address.as_deref()).filter(|address| !address.is_empty());
    let address = address.map(|address| Claim {
        key: format!("address/{namespace}/{address}"),
        field: "status.networking.privateIPv4Address".into(),
        what: format!("address {address}"),
        chosen_by: ChosenBy::Platform,
    });
    disks.chain(address).collect()
}

/// A place in its placement group, whether that exists or not: the limit holds for those that came before the group as well.
fn takes(vm: &VirtualMachine) -> Vec<Take> {
    let Some(group) = vm.spec.group() else { return vec![] };
    let message = format!(
        "expected at most {MOST_MEMBERS} VMs in placement group \"{group}\", found {MOST_MEMBERS} others, of which those that are being \
         deleted count until they are gone; name another placement group, or delete a VM of this one"
    );
    vec![Take {
        ledger: ledgers::of_placement_group(&vm.namespace().unwrap_or_default(), group),
        resource: MEMBERS,
        amount: 1,
        field: "spec.placementGroup",
        limit: Some(Limit { amount: MOST_MEMBERS, message }),
    }]
}

/// There is a disk to boot from, SSH keys have their form, and user data has room.
fn problems(spec: &VirtualMachineSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !spec.disk_refs.is_empty() && spec.boot_disk().is_none() {
        problems.push(Problem::new(
            "spec.diskRefs",
            "expected one disk with bootFrom: true, found none; mark the disk to boot from",
        ));
    }
    let bytes = user_data_of(spec).map_or(0, str::len);
    if bytes > user_data::LONGEST_BYTES {
        problems.push(Problem::new(
            USER_DATA,
            format!(
                "expected at most {} bytes, found {bytes}; compress it with gzip and give it as base64, or fetch the rest with #include",
                user_data::LONGEST_BYTES
            ),
        ));
    }
    for (index, key) in keys_of(spec).iter().enumerate() {
        if let Some(problem) = crate::ssh_key::problem(&key.value) {
            problems.push(Problem::new(format!("{KEYS}[{index}].value"), problem));
        }
    }
    problems
}

const USER_DATA: &str = "spec.osSettings.cloudInitUserData";
const KEYS: &str = "spec.osSettings.ssh.authorizedKeys";

/// The user's own user data; an empty text is none.
fn user_data_of(spec: &VirtualMachineSpec) -> Option<&str> {
    let given = spec.os_settings.as_ref().and_then(|settings| settings.cloud_init_user_data.as_deref());
    given.filter(|text| !text.is_empty())
}

fn keys_of(spec: &VirtualMachineSpec) -> &[VMAuthorizedKey] {
    let ssh = spec.os_settings.as_ref().and_then(|settings| settings.ssh.as_ref());
    ssh.map(|ssh| ssh.authorized_keys.as_slice()).unwrap_or_default()
}

/// Warnings about settings that the guest will ignore.
fn warnings(new: &VirtualMachine, old: Option<&VirtualMachine>) -> Vec<String> {
    let keys = keys_of(&new.spec);
    if let Some(old) = old {
        let is_changed = keys != keys_of(&old.spec);
        let late = || {
            format!(
                "{KEYS}: keys are written at the first boot: a VM that has booted keeps those in its authorized_keys file"
            )
        };
        return is_changed.then(late).into_iter().collect();
    }
    let Some(decoded) = user_data_of(&new.spec).map(user_data::decode) else { return Vec::new() };
    let mut warnings = Vec::new();
    warnings.extend(user_data::unrecognised(&decoded).map(|why| format!("{USER_DATA}: {why}")));
    if !keys.is_empty() && !user_data::references_keys(&decoded.bytes) {
        warnings.push(format!(
            "{KEYS}: cloudInitUserData does not reference these keys, so that they will not be applied: list \"default\" in its users, use \
             {{{{ ds.meta_data.public_keys }}}} in a template, or set allow_public_ssh_keys: true"
        ));
    }
    warnings
}

/// Disks above all: one that is released while a guest still writes to it could be given to another.
fn changes_refused(new: &VirtualMachine, old: &VirtualMachine) -> Vec<Problem> {
    let state = old.status.as_ref().and_then(|status| status.virtual_machine_status);
    let Some(state) = state.filter(|state| state.is_on_a_host()) else { return vec![] };
    // Every field is named, so that a new one does not compile until it is decided: either it can change while the VM runs, or it is
    // compared below.
    let VirtualMachineSpec {
        running: _,
        vm_virtual_resources_ref,
        disk_refs,
        placement_group,
        os_settings,
        networking,
        placement: _,
    } = &new.spec;
    // User data and zone are immutable in every state; keys are written at the first boot, which their documentation says.
    if let Some(VMOSSettings { cloud_init_user_data: _, ssh: Some(VMSSHSettings { authorized_keys: _ }) }) = os_settings
    {
    }
    let while_stopped = [
        ("spec.vmVirtualResourcesRef", *vm_virtual_resources_ref != old.spec.vm_virtual_resources_ref),
        ("spec.diskRefs", *disk_refs != old.spec.disk_refs),
        ("spec.placementGroup", group(placement_group.as_ref()) != old.spec.group()),
    ];
    let mut refused: Vec<Problem> = while_stopped
        .into_iter()
        .filter(|(_, is_changed)| *is_changed)
        .map(|(field, _)| {
            Problem::new(
                field,
                format!(
                    "can be changed while the VM is stopped, found it {state:?}: set spec.running: false, wait until \
                     status.virtualMachineStatus is Stopped, change it, and set spec.running: true"
                ),
            )
        })
        .collect();
    refused.extend(without_effect(networking.as_ref(), old.spec.networking.as_ref()));
    refused
}

fn group(name: Option<&String>) -> Option<&str> {
    name.map(String::as_str).filter(|name| !name.is_empty())
}

/// Protection that is not applied is never accepted.
fn without_effect(new: Option<&VMNetworkingSettings>, old: Option<&VMNetworkingSettings>) -> Vec<Problem> {
    let parts = |networking: Option<&VMNetworkingSettings>| {
        let VMNetworkingSettings { public_ipv4_address, security_groups } = networking.cloned().unwrap_or_default();
        let VMPublicIPv4AddressSettings { static_ } = public_ipv4_address.unwrap_or_default();
        let public = static_.and_then(|it| it.public_ip_ref).filter(|name| !name.is_empty());
        (public, security_groups.unwrap_or_default().security_group_memberships)
    };
    let ((new_public, new_groups), (old_public, old_groups)) = (parts(new), parts(old));
    let refuse = |field: &str, what: &str| {
        Problem::new(
            field,
            format!(
                "expected no change: this version has no {what}, so that it would have no effect on the running VM; leave the field as it was"
            ),
        )
    };
    let groups = (new_groups != old_groups)
        .then(|| refuse("spec.networking.securityGroups", "security groups, which would protect nothing"));
    let public = (new_public != old_public).then(|| refuse("spec.networking.publicIPv4Address", "public addresses"));
    groups.into_iter().chain(public).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn vm(spec: &Value, status: Option<&str>) -> VirtualMachine {
        let mut object = json!({"apiVersion": "compute.evroclabs.net/v1alpha1", "kind": "VirtualMachine",
            "metadata": {"namespace": "demo", "name": "a"},
            "spec": {"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "test.xs"}, "diskRefs": [{"name": "x"}]}});
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        if let Some(status) = status {
            object["status"] = json!({"virtualMachineStatus": status});
        }
        serde_json::from_value(object).unwrap()
    }

    fn refused(change: &Value, status: Option<&str>) -> Vec<String> {
        let old = vm(&json!({}), status);
        changes_refused(&vm(change, status), &old).into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_running_vm_keeps_what_it_runs_on() {
        for (change, field) in [
            (json!({"diskRefs": [{"name": "y"}]}), "spec.diskRefs"),
            (json!({"vmVirtualResourcesRef": {"vmVirtualResourcesRefName": "a1a.s"}}), "spec.vmVirtualResourcesRef"),
            (json!({"placementGroup": "g"}), "spec.placementGroup"),
        ] {
            assert_eq!(refused(&change, Some("Running")), [field], "{change}");
            assert_eq!(refused(&change, Some("Stopped")), [""; 0], "{change}");
            assert_eq!(refused(&change, None), [""; 0], "{change}");
        }
        assert_eq!(refused(&json!({"running": false}), Some("Running")), [""; 0]);
        assert_eq!(refused(&json!({"placementGroup": ""}), Some("Running")), [""; 0], "it had none before");
    }

    #[test]
    fn a_running_vm_is_not_given_protection_that_does_not_exist() {
        let groups = json!({"networking": {"securityGroups": {"securityGroupMemberships": [{"name": "web"}]}}});
        assert_eq!(refused(&groups, Some("Running")), ["spec.networking.securityGroups"]);
        let public = json!({"networking": {"publicIPv4Address": {"static": {"publicIPRef": "front"}}}});
        assert_eq!(refused(&public, Some("Starting")), ["spec.networking.publicIPv4Address"]);
        assert_eq!(refused(&json!({"networking": {}}), Some("Running")), [""; 0]);
    }

    #[test]
    fn a_vm_takes_a_place_in_its_group() {
        assert_eq!(takes(&vm(&json!({"placementGroup": ""}), None)), []);
        let taken = takes(&vm(&json!({"placementGroup": "web"}), None));
        assert_eq!((taken[0].ledger.as_str(), taken[0].amount), ("placement-group/demo/web", 1));
        assert_eq!(taken[0].limit.as_ref().map(|limit| limit.amount), Some(5));
    }

    #[test]
    fn a_vm_claims_its_disks_and_its_address() {
        let mut vm = vm(&json!({"diskRefs": [{"name": "x", "bootFrom": true}, {"name": "y"}]}), Some("Running"));
        vm.status.as_mut().unwrap().networking =
            serde_json::from_value(json!({"privateIPv4Address": "10.0.0.3"})).unwrap();
        let keys: Vec<String> = claims(&vm).into_iter().map(|claim| claim.key).collect();
        assert_eq!(keys, ["disk/demo/x", "disk/demo/y", "address/demo/10.0.0.3"]);
    }
}
