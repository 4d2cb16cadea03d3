//! Which host something goes to: a pure function of what is known of the hosts.

use evroc_api::compute::Placement;
use evroc_api::conditions;
use evroc_api::infra::{Host, Machine};
use kube::ResourceExt;

/// Why nothing fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unschedulable(pub String);

/// What a machine needs.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Virtual processors; shared, so no limit but that one machine cannot have more than the host.
    pub vcpus: u32,
    /// Memory in bytes; never shared.
    pub memory_bytes: u64,
}

/// The hosts that take new things, in the wanted zone.
pub fn candidates<'a>(hosts: &'a [Host], placement: Option<&Placement>) -> Result<Vec<&'a Host>, Unschedulable> {
    let zone = placement.and_then(|p| p.zone.as_deref());
    let open: Vec<&Host> = hosts
        .iter()
        .filter(|h| !h.spec.unschedulable && conditions::is_true(ready_conditions(h), conditions::READY))
        .collect();
    if open.is_empty() {
        let found = if hosts.is_empty() { "there is none".into() } else { format!("{} not ready", names(hosts)) };
        return Err(Unschedulable(format!("expected a host that is ready, found: {found}; `evrocd status` says why")));
    }
    let in_zone: Vec<&Host> =
        open.iter().copied().filter(|h| zone.is_none() || h.spec.zone.as_deref() == zone).collect();
    if in_zone.is_empty() {
        let mut zones: Vec<&str> = open.iter().filter_map(|h| h.spec.zone.as_deref()).collect();
        zones.sort_unstable();
        zones.dedup();
        return Err(Unschedulable(format!(
            "spec.placement.zone: expected a zone that has a host ({}), found \"{}\"",
            zones.join(", "),
            zone.unwrap_or_default()
        )));
    }
    Ok(in_zone)
}

/// The host with the most memory left over for a machine; ties go to the first name.
pub fn place_machine(
    hosts: &[&Host],
    machines: &[Machine],
    itself: &str,
    profile: &str,
    need: Need,
) -> Result<String, Unschedulable> {
    let mut best: Option<(u64, &Host)> = None;
    let mut refusals = Vec::new();
    for host in hosts {
        let Some(room) = host.status.as_ref().and_then(|s| s.allocatable.as_ref()) else { continue };
        let used: u64 = machines
            .iter()
            .filter(|m| m.spec.host_name == host.name_any() && m.uid().as_deref() != Some(itself))
            .map(|m| m.spec.memory_bytes)
            .sum();
        let free = room.memory_bytes.saturating_sub(used);
        if need.vcpus > room.cpus {
            refusals.push(format!("{} has {} CPUs", host.name_any(), room.cpus));
        } else if need.memory_bytes > free {
            refusals.push(format!(
                "{} has {} of {} free",
                host.name_any(),
                gigabytes(free),
                gigabytes(room.memory_bytes)
            ));
        } else if best.is_none_or(|(most, _)| free > most) {
            best = Some((free, host));
        }
    }
    if best.is_none() && refusals.is_empty() {
        return Err(Unschedulable("no host has reported its memory yet".into()));
    }
    best.map(|(_, host)| host.name_any()).ok_or_else(|| {
        Unschedulable(format!(
            "spec.vmVirtualResourcesRef.vmVirtualResourcesRefName: profile {profile} needs {} vCPUs and {} of memory, but {}; \
             choose a smaller profile (`kubectl get vmvirtualresources`), or stop another VM",
            need.vcpus,
            gigabytes(need.memory_bytes),
            refusals.join(", ")
        ))
    })
}

/// The host with the most disk space for a volume; ties go to the first name.
pub fn place_volume(hosts: &[&Host]) -> Option<String> {
    let disk = |h: &Host| h.status.as_ref().and_then(|s| s.allocatable.as_ref()).map_or(0, |a| a.disk_bytes);
    hosts.iter().rev().max_by_key(|h| disk(h)).map(|h| h.name_any())
}

fn ready_conditions(host: &Host) -> &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition] {
    host.status.as_ref().map_or(&[], |s| s.conditions.as_slice())
}

fn names(hosts: &[Host]) -> String {
    hosts.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", ")
}

/// Bytes in GB of 1024, one decimal: `20.1 GB`.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / f64::from(1 << 30))
}
