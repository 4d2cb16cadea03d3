//! Plans the next steps for a virtual machine: pure.

use std::net::Ipv4Addr;
use std::time::Duration;

use evroc_api::COMPUTE_FINALIZER;
use evroc_api::infra::{Machine, MachinePhase, MachineSpec, MachineVolume, Volume, VolumeFormat, VolumeSpec};
use evroc_placement::HostFacts;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::address::{free_address, kept_address, network};
use super::binding::{Next, next};
use super::block::Size;
use super::observe::{Observed, ObservedDisk};
use super::restart::{has_ended, restart_pause, restarts};

/// How long to wait for a host that the store refused a moment ago, or for a rule that refused the machine: nothing else wakes a
/// virtual machine then. Too low repeats refusals; too high keeps its user waiting.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Keep the object until the virtual machine has ended.
    AddFinalizer,
    /// Let the object be removed.
    RemoveFinalizer,
    /// Give it its private address.
    AssignAddress(Ipv4Addr),
    /// Make the volumes of these disks.
    Bind(Vec<(String, VolumeSpec)>),
    /// Remove the volumes of these disks, which were never used.
    Release(Vec<String>),
    /// Say of the volumes of these disks that they are used, before the host may start the machine.
    Keep(Vec<String>),
    /// Run it: write the epoch, then create the machine.
    CreateMachine(Box<MachineSpec>),
    /// Stop it.
    DeleteMachine,
    /// Look again later.
    LookAgain(Duration),
}

/// Returns the steps that the observed state requires.
pub fn plan(observed: &Observed, now: Timestamp) -> Vec<Step> {
    let vm = &observed.vm;
    let is_deleted = vm.metadata.deletion_timestamp.is_some();
    if is_deleted || !vm.spec.running {
        let has_running = observed.machines.iter().any(|machine| machine.metadata.deletion_timestamp.is_none());
        return match observed.machine() {
            Some(_) if has_running => vec![Step::DeleteMachine],
            Some(_) => vec![],
            None if is_deleted => vec![Step::RemoveFinalizer],
            None => missing_finalizer(observed),
        };
    }
    let mut steps = missing_finalizer(observed);
    if let Some(machine) = observed.machine() {
        if machine.metadata.deletion_timestamp.is_none() && has_lost_a_volume(observed, machine) {
            steps.push(Step::DeleteMachine);
            return steps;
        }
        if machine.metadata.deletion_timestamp.is_none() && has_ended(machine) {
            match restart_pause(observed, machine, now) {
                Duration::ZERO => steps.push(Step::DeleteMachine),
                pause => steps.push(Step::LookAgain(pause)),
            }
        } else if machine.metadata.deletion_timestamp.is_none() {
            steps.extend(keep(observed, &machine.spec));
        }
        return steps;
    }
    match next(observed) {
        Ok(Next::Release(volumes)) => {
            steps.push(Step::Release(volumes.into_iter().map(ResourceExt::name_any).collect()));
        }
        Ok(Next::Bind(disks)) => {
            steps.push(Step::Bind(disks.into_iter().map(|(disk, spec)| (disk.name.clone(), spec)).collect()));
        }
        Ok(Next::Start(host, size)) => match kept_address(observed) {
            None => steps.extend(free_address(observed).map(Step::AssignAddress)),
            Some(address) => {
                if let Some(machine) = machine(observed, host, size, address) {
                    let keep = keep(observed, &machine);
                    steps.push(Step::CreateMachine(Box::new(machine)));
                    steps.extend(keep);
                }
            }
        },
        Err(_) if observed.refused.is_some() || observed.hosts.iter().any(|host| host.refused.is_some()) => {
            steps.push(Step::LookAgain(AFTER_REFUSAL));
        }
        Err(_) => {}
    }
    steps
}

/// The provisional volumes of a machine. Its place, and theirs, are certain when it has been created: what another one took meanwhile would
/// have refused it.
fn keep(observed: &Observed, machine: &MachineSpec) -> Option<Step> {
    let is_of_machine = |volume: &Volume| machine.volumes.iter().any(|it| it.uid.is_some() && it.uid == volume.uid());
    let volumes = observed.disks.iter().filter_map(|disk| disk.volume.as_ref());
    let provisional = volumes.filter(|volume| volume.spec.provisional && volume.metadata.deletion_timestamp.is_none());
    let volumes: Vec<String> = provisional.filter(|volume| is_of_machine(volume)).map(ResourceExt::name_any).collect();
    (!volumes.is_empty()).then_some(Step::Keep(volumes))
}

/// Whether a machine can never start, because a volume was removed between the decision to use it and the machine's creation.
fn has_lost_a_volume(observed: &Observed, machine: &Machine) -> bool {
    let phase = machine.status.as_ref().and_then(|status| status.phase);
    let is_there = |uid: &String| {
        let mut volumes = observed.disks.iter().filter_map(|disk| disk.volume.as_ref());
        volumes.any(|volume| volume.uid().as_ref() == Some(uid) && volume.metadata.deletion_timestamp.is_none())
    };
    matches!(phase, None | Some(MachinePhase::Pending))
        && machine.spec.volumes.iter().filter_map(|volume| volume.uid.as_ref()).any(|uid| !is_there(uid))
}

fn missing_finalizer(observed: &Observed) -> Vec<Step> {
    let has_it = observed.vm.finalizers().iter().any(|f| f == COMPUTE_FINALIZER);
    if has_it { vec![] } else { vec![Step::AddFinalizer] }
}

/// The highest number that an incarnation of this virtual machine has had. Earlier versions numbered them by the clock, in the
/// machines only.
pub fn epoch(observed: &Observed) -> Option<i64> {
    let recorded = observed.vm.status.as_ref().and_then(|status| status.epoch);
    observed.machines.iter().map(|machine| machine.spec.epoch).chain(recorded).max()
}

/// The next incarnation.
fn machine(observed: &Observed, host: &HostFacts, size: Size, address: Ipv4Addr) -> Option<MachineSpec> {
    let vm = &observed.vm;
    let hardware = vm.status.as_ref().and_then(|status| status.hardware.as_ref());
    Some(MachineSpec {
        host_name: host.name.clone(),
        epoch: epoch(observed).unwrap_or(0) + 1,
        virtual_machine_uid: vm.uid().unwrap_or_default(),
        virtual_machine: Some(vm.name_any()),
        placement_group: vm.spec.group().map(str::to_owned),
        vcpus: size.vcpus,
        memory_bytes: size.memory_bytes,
        volumes: volumes(observed),
        network: network(observed, address)?,
        hostname: vm.name_any(),
        authorized_keys: keys(observed),
        user_data: vm.spec.os_settings.as_ref().and_then(|s| s.cloud_init_user_data.clone()),
        machine_type: hardware.map(|hardware| hardware.machine_type.clone()),
        cpu_model: hardware.map(|hardware| hardware.cpu_model.clone()),
        restarts: restarts(observed).unwrap_or_default(),
    })
}

/// The boot volume first: it is `/dev/vda`.
fn volumes(observed: &Observed) -> Vec<MachineVolume> {
    let boot = observed.vm.spec.boot_disk().map(|d| d.name.clone()).unwrap_or_default();
    let mut disks: Vec<&ObservedDisk> = observed.disks.iter().collect();
    disks.sort_by_key(|disk| disk.name != boot);
    let volumes = disks.into_iter().map(|disk| MachineVolume {
        name: disk.name.clone(),
        boot: disk.name == boot,
        uid: disk.volume.as_ref().and_then(ResourceExt::uid),
        disk_uid: disk.disk.as_ref().and_then(ResourceExt::uid),
        format: Some(VolumeFormat::Qcow2),
        size_bytes: disk.volume.as_ref().map(|volume| volume.spec.size_bytes),
        image_sha256: disk.volume.as_ref().and_then(|volume| volume.spec.image_sha256.clone()),
    });
    volumes.collect()
}

fn keys(observed: &Observed) -> Vec<String> {
    let ssh = observed.vm.spec.os_settings.as_ref().and_then(|s| s.ssh.as_ref());
    ssh.map(|s| s.authorized_keys.iter().map(|k| k.value.clone()).collect()).unwrap_or_default()
}
