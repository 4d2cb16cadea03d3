//! The rules of the kinds that run on hosts: what they take from a host, what is unique, and that their specs never change.

use kube::ResourceExt;

use crate::claims::{ChosenBy, Claim};
use crate::infra::{Host, Machine, Replica, SPREAD_FIELD, Volume, VolumeSpec};
use crate::ledgers::{self, DISK, GROUP_MEMORY, GROUP_STORAGE, MEMORY, Room, Take};
use crate::names::NameRule;
use crate::rules::{Function, Immutable, KindRules, OfChange, Problem};

impl KindRules for Host {
    const NAMES: NameRule = NameRule::ANY;
    const GIVES: Function<Self, Room> = Some(room_of_host);
}

impl KindRules for Volume {
    const NAMES: NameRule = NameRule::ANY;
    const IMMUTABLE: &'static [Immutable] = &[
        Immutable { path: "hostName", message: "a volume stays on its host" },
        Immutable { path: "image", message: "a volume keeps the image that it was cloned from" },
        Immutable { path: "imageSha256", message: "a volume keeps the image that it was cloned from" },
    ];
    const CHANGES_REFUSED: OfChange<Self> = Some(never_back);
    const TAKES: Function<Self, Take> = Some(|volume| {
        let (host, group) = (&volume.spec.host_name, volume.namespace());
        takes(host, group, (DISK, GROUP_STORAGE), volume.spec.size_bytes, "spec.sizeBytes")
    });
}

impl KindRules for Machine {
    const NAMES: NameRule = NameRule::ANY;
    const IMMUTABLE: &'static [Immutable] =
        &[Immutable { path: "", message: "a machine is one incarnation and cannot be changed: make another one" }];
    const CLAIMS: Function<Self, Claim> = Some(claims_of_machine);
    const TAKES: Function<Self, Take> = Some(|machine| {
        let (host, group) = (&machine.spec.host_name, machine.namespace());
        takes(host, group, (MEMORY, GROUP_MEMORY), machine.spec.memory_bytes, "spec.memoryBytes")
    });
}

impl KindRules for Replica {
    const NAMES: NameRule = NameRule::ANY;
    const IMMUTABLE: &'static [Immutable] =
        &[Immutable { path: "", message: "a replica cannot be changed: make another one" }];
    const TAKES: Function<Self, Take> = Some(|replica| {
        let (host, group) = (&replica.spec.host_name, replica.namespace());
        takes(host, group, (MEMORY, GROUP_MEMORY), replica.spec.memory_bytes, "spec.memoryBytes")
    });
}

/// Returns the takes of a workload: from its host and from its resource group.
fn takes(
    host: &str,
    group: Option<String>,
    resource: (&'static str, &'static str),
    amount: u64,
    field: &'static str,
) -> Vec<Take> {
    let of_host = Take { ledger: ledgers::of_host(host), resource: resource.0, amount, field, limit: None };
    let of_group =
        group.map(|group| Take { ledger: ledgers::of_group(&group), resource: resource.1, amount, field, limit: None });
    std::iter::once(of_host).chain(of_group).collect()
}

/// The last report of the host's agent. Nothing before it: unknown resources are not given away.
fn room_of_host(host: &Host) -> Vec<Room> {
    let Some(allocatable) = host.status.as_ref().and_then(|status| status.allocatable.as_ref()) else { return vec![] };
    let percent = u128::from(host.spec.disk_overcommit_percent.unwrap_or(100));
    let disk = u64::try_from(u128::from(allocatable.disk_bytes) * percent / 100).unwrap_or(u64::MAX);
    let ledger = ledgers::of_host(&host.name_any());
    vec![
        Room { ledger: ledger.clone(), resource: MEMORY, amount: allocatable.memory_bytes },
        Room { ledger, resource: DISK, amount: disk },
    ]
}

/// A virtual machine has one incarnation at a time, until the host has let it go; so has a volume one user, and a host one machine of a
/// placement group. The group is claimed by its name, as the virtual machine names it: of one that was deleted and created again no two are on a host either.
fn claims_of_machine(machine: &Machine) -> Vec<Claim> {
    let incarnation = Claim {
        key: format!("incarnation/{}", machine.spec.virtual_machine_uid),
        field: "spec.virtualMachineUid".into(),
        what: format!("virtual machine {}", machine.spec.virtual_machine_uid),
        chosen_by: ChosenBy::Platform,
    };
    let namespace = machine.namespace().unwrap_or_default();
    let volumes = machine.spec.volumes.iter().enumerate().map(|(index, volume)| Claim {
        key: format!("volume/{namespace}/{}", volume.name),
        field: format!("spec.volumes[{index}].name"),
        what: format!("volume \"{}\"", volume.name),
        chosen_by: ChosenBy::Platform,
    });
    let host = &machine.spec.host_name;
    let spread = machine.spec.placement_group.as_ref().map(|group| Claim {
        key: format!("spread/{namespace}/{group}/{host}"),
        field: SPREAD_FIELD.into(),
        what: format!("the place of placement group \"{group}\" on host {host}"),
        chosen_by: ChosenBy::Platform,
    });
    std::iter::once(incarnation).chain(volumes).chain(spread).collect()
}

/// A volume never shrinks, and one that was used is never again as if it had not been.
fn never_back(new: &Volume, old: &Volume) -> Vec<Problem> {
    // Every field is named, so that a new one does not compile until its mutability has been decided.
    let VolumeSpec { host_name: _, image: _, image_sha256: _, size_bytes, provisional } = &new.spec;
    let mut problems = vec![];
    if *size_bytes < old.spec.size_bytes {
        let message =
            format!("expected at least {} bytes, found {size_bytes}: a volume never shrinks", old.spec.size_bytes);
        problems.push(Problem::new("spec.sizeBytes", message));
    }
    if *provisional && !old.spec.provisional {
        problems.push(Problem::new("spec.provisional", "expected false: a volume that was used may have data"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::{Capacity, HostSpec, HostStatus, MachineSpec, MachineVolume};

    #[test]
    fn a_host_gives_what_it_reported() {
        let mut host = Host::new("a", HostSpec::default());
        assert_eq!(room_of_host(&host), []);
        let allocatable = Capacity { cpus: 4, memory_bytes: 8, disk_bytes: 100 };
        host.status = Some(HostStatus { allocatable: Some(allocatable), ..HostStatus::default() });
        let amounts = |host: &Host| room_of_host(host).iter().map(|it| (it.resource, it.amount)).collect::<Vec<_>>();
        assert_eq!(amounts(&host), [(MEMORY, 8), (DISK, 100)]);
        host.spec.disk_overcommit_percent = Some(250);
        assert_eq!(amounts(&host), [(MEMORY, 8), (DISK, 250)]);
    }

    #[test]
    fn a_machine_claims_its_incarnation_and_its_volumes() {
        let volumes = vec![MachineVolume { name: "x".into(), ..MachineVolume::default() }];
        let spec = MachineSpec { virtual_machine_uid: "u".into(), volumes, ..MachineSpec::default() };
        let mut machine = Machine::new("a-1", spec);
        machine.metadata.namespace = Some("demo".into());
        let keys: Vec<String> = claims_of_machine(&machine).into_iter().map(|claim| claim.key).collect();
        assert_eq!(keys, ["incarnation/u", "volume/demo/x"]);
    }

    #[test]
    fn a_volume_that_was_used_stays_so() {
        let volume = |provisional| Volume::new("a", VolumeSpec { provisional, ..VolumeSpec::default() });
        assert_eq!(never_back(&volume(false), &volume(true)), []);
        assert_eq!(never_back(&volume(true), &volume(true)), []);
        assert_eq!(never_back(&volume(true), &volume(false))[0].field, "spec.provisional");
    }

    #[test]
    fn a_machine_of_a_group_claims_its_host_for_the_group() {
        let spec = MachineSpec {
            virtual_machine_uid: "u".into(),
            host_name: "h".into(),
            placement_group: Some("web".into()),
            ..MachineSpec::default()
        };
        let mut machine = Machine::new("a-1", spec);
        machine.metadata.namespace = Some("demo".into());
        let keys: Vec<String> = claims_of_machine(&machine).into_iter().map(|claim| claim.key).collect();
        assert_eq!(keys, ["incarnation/u", "spread/demo/web/h"]);
    }

    #[test]
    fn a_volume_grows_only() {
        let of_size = |size_bytes| Volume::new("a", VolumeSpec { size_bytes, ..VolumeSpec::default() });
        assert_eq!(never_back(&of_size(2), &of_size(1)), []);
        assert_eq!(never_back(&of_size(1), &of_size(2)).len(), 1);
    }
}
