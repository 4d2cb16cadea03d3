//! The host of a virtual machine, and the volumes of its disks there. Pure.
//!
//! A volume that has data stays where it is, and the machine goes there. Until a machine has its place, volumes are provisional: where the
//! host turns out not to have the room for all of it, they are removed, and all is placed again. So a virtual machine that does not fit
//! holds nothing that another one waits for.

use evroc_api::compute::VirtualMachineStatusType as State;
use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Volume, VolumeSpec};
use evroc_placement::{HostFacts, Need, Spread, Unplaceable, choose, gigabytes};

use super::block::{Block, Size, block, size_or_block};
use super::observe::{Observed, ObservedDisk};
use super::zone::{self, Wanted};
use crate::disk::contents;
use crate::place::no_host;

/// The next step for a virtual machine that nothing blocks.
#[derive(Clone, Debug)]
pub(super) enum Next<'a> {
    /// These volumes were never used and stand in the way.
    Release(Vec<&'a Volume>),
    /// These disks get a volume.
    Bind(Vec<(&'a ObservedDisk, VolumeSpec)>),
    /// It can run on this host.
    Start(&'a HostFacts, Size),
}

/// The next step to a machine, or what keeps the virtual machine from running.
pub(super) fn next(observed: &Observed) -> Result<Next<'_>, Block> {
    let size = size_or_block(observed)?;
    let zone = zone::wanted(observed)?;
    if let Some((disk, volume)) = volumes(observed).find(|(_, volume)| volume.metadata.deletion_timestamp.is_some()) {
        let (disk, host) = (&disk.name, &volume.spec.host_name);
        let message =
            format!("waits for Disk \"{disk}\", which is still empty and gets another host: waits for host {host}");
        return Err(block(State::WaitingForVolumeBinding, message));
    }
    let new = new_volumes(observed)?;
    let host = match place(observed, size, &zone, &new)? {
        Placed::On(host, released) if released.is_empty() => host,
        Placed::On(_, released) | Placed::Nowhere(released) => return Ok(Next::Release(released)),
    };
    if !new.is_empty() {
        let on_host = |(disk, spec): (_, VolumeSpec)| (disk, VolumeSpec { host_name: host.name.clone(), ..spec });
        return Ok(Next::Bind(new.into_iter().map(on_host).collect()));
    }
    for (disk, volume) in volumes(observed) {
        let ready = volume.status.as_ref().and_then(|status| conditions::get(&status.conditions, READY));
        if ready.is_none_or(|ready| ready.status != "True") {
            let making = || format!("the disk is being made on host {}", host.name);
            let why = ready.map(|ready| ready.message.clone()).unwrap_or_else(making);
            return Err(block(State::WaitingForVolumeBinding, format!("waits for Disk \"{}\": {why}", disk.name)));
        }
    }
    Ok(Next::Start(host, size))
}

fn volumes(observed: &Observed) -> impl Iterator<Item = (&ObservedDisk, &Volume)> {
    observed.disks.iter().filter_map(|disk| Some((disk, disk.volume.as_ref()?)))
}

/// The volumes that are missing, without a host.
fn new_volumes(observed: &Observed) -> Result<Vec<(&ObservedDisk, VolumeSpec)>, Block> {
    let mut new = vec![];
    for observed in observed.disks.iter().filter(|disk| disk.volume.is_none()) {
        let failed = |why: &str| block(State::DataVolumeError, format!("Disk \"{}\": {why}", observed.name));
        let Some(disk) = &observed.disk else { continue };
        if let Some(refused) = &observed.refused {
            return Err(failed(&format!("the disk's volume was refused: {refused}")));
        }
        let contents = contents(disk, observed.image.as_ref(), &[]).map_err(|why| failed(&why.message))?;
        let spec = VolumeSpec {
            host_name: String::new(),
            image: contents.image,
            image_sha256: contents.image_sha256,
            size_bytes: contents.bytes,
            provisional: true,
        };
        new.push((observed, spec));
    }
    Ok(new)
}

/// A host, and the volumes that are elsewhere and were never used; or those that have to go before there can be a host.
enum Placed<'a> {
    On(&'a HostFacts, Vec<&'a Volume>),
    Nowhere(Vec<&'a Volume>),
}

fn place<'a>(
    observed: &'a Observed,
    size: Size,
    zone: &Wanted,
    new: &[(&ObservedDisk, VolumeSpec)],
) -> Result<Placed<'a>, Block> {
    let (movable, fixed): (Vec<_>, Vec<_>) = volumes(observed).partition(|(_, volume)| volume.spec.provisional);
    let spread = observed.vm.spec.group().map(|group| Spread { group, hosts: &observed.group_hosts });
    let new_bytes = new.iter().map(|(_, spec)| spec.size_bytes).fold(0, u64::saturating_add);
    let need = |host: Option<&'a str>| {
        let elsewhere = movable.iter().filter(|(_, volume)| Some(volume.spec.host_name.as_str()) != host);
        let bytes = elsewhere.map(|(_, volume)| volume.spec.size_bytes).fold(new_bytes, u64::saturating_add);
        Need {
            zone: zone.zone.as_deref(),
            host,
            vcpus: size.vcpus,
            memory_bytes: size.memory_bytes,
            disk_bytes: bytes,
            spread,
        }
    };
    let bound = one_host(&fixed)?;
    let mut hosts: Vec<&str> = match bound {
        Some((host, _)) => vec![host],
        None => movable.iter().map(|(_, volume)| volume.spec.host_name.as_str()).collect(),
    };
    hosts.dedup();
    let mut refused = None;
    for host in hosts {
        match choose(&observed.hosts, &need(Some(host))) {
            Ok(chosen) => {
                let elsewhere = movable.iter().map(|(_, volume)| *volume).filter(|it| it.spec.host_name != chosen.name);
                return Ok(Placed::On(chosen, elsewhere.collect()));
            }
            Err(why) => refused = refused.or(Some((why, host))),
        }
    }
    // A host that is away has to come back before it can remove anything: then it may as well be used.
    let is_away = refused.as_ref().is_some_and(|(why, _)| !matches!(why, Unplaceable::NoRoom(_)));
    let is_kept = is_away && (bound.is_some() || choose(&observed.hosts, &need(None)).is_err());
    if !movable.is_empty() && !is_kept {
        return Ok(Placed::Nowhere(movable.into_iter().map(|(_, volume)| volume).collect()));
    }
    let (why, need) = match refused {
        Some((why, host)) => (why, need(Some(host))),
        None => match choose(&observed.hosts, &need(None)) {
            Ok(host) => return Ok(Placed::On(host, vec![])),
            Err(why) => (why, need(None)),
        },
    };
    let disk = bound.or(movable.first().map(|(disk, volume)| (volume.spec.host_name.as_str(), disk.name.as_str())));
    Err(unschedulable(observed, why, &need, disk.map(|(_, disk)| disk), &zone.from))
}

/// The host of volumes that have data, with one of the disks.
fn one_host<'a>(fixed: &[(&'a ObservedDisk, &'a Volume)]) -> Result<Option<(&'a str, &'a str)>, Block> {
    let mut places: Vec<(&str, &str)> =
        fixed.iter().map(|(disk, volume)| (volume.spec.host_name.as_str(), disk.name.as_str())).collect();
    places.dedup_by_key(|(host, _)| *host);
    if places.len() < 2 {
        return Ok(places.first().copied());
    }
    let places: Vec<String> = places.iter().map(|(host, disk)| format!("\"{disk}\" on {host}")).collect();
    let message = format!("expected all disks on one host, found {}", places.join(", "));
    Err(block(State::ErrorUnschedulable, message))
}

fn unschedulable(observed: &Observed, why: Unplaceable, need: &Need<'_>, disk: Option<&str>, from: &str) -> Block {
    let message = match why {
        Unplaceable::NotThere(host) => {
            let disk = disk.unwrap_or_default();
            format!("Disk \"{disk}\" is on host {host}, which is not ready or not in the wanted zone")
        }
        Unplaceable::NoReport => "no host has reported its resources yet".into(),
        Unplaceable::NoRoom(hosts) => {
            let profile = &observed.vm.spec.vm_virtual_resources_ref.vm_virtual_resources_ref_name;
            let disks = match need.disk_bytes {
                0 => String::new(),
                bytes => format!(", and {} of disk for its new disks", gigabytes(bytes)),
            };
            format!(
                "spec.vmVirtualResourcesRef.vmVirtualResourcesRefName: profile {profile} needs {} vCPUs and {} of memory{disks}, but no \
                 host fits: {hosts}; choose a smaller profile (`kubectl get vmvirtualresources`), or stop another VM",
                need.vcpus,
                gigabytes(need.memory_bytes)
            )
        }
        other => no_host(&other, need.zone, from).unwrap_or_default(),
    };
    block(State::ErrorUnschedulable, message)
}
