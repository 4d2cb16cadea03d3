//! The choice: pure.

use std::collections::BTreeMap;

use crate::facts::{HostFacts, Room};
use crate::gigabytes;

/// The thing to place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need<'a> {
    /// The zone that it has to be in.
    pub zone: Option<&'a str>,
    /// The host that it has to be on, because a part of it is on that host already.
    pub host: Option<&'a str>,
    /// Virtual processors; shared, so no limit but that one machine cannot have more than the host.
    pub vcpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The sizes of the volumes that are to be made, in bytes.
    pub disk_bytes: u64,
    /// The hosts that it must not share.
    pub spread: Option<Spread<'a>>,
}

/// The hosts that the other virtual machines of a placement group have for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread<'a> {
    /// The group's name, for the refusal.
    pub group: &'a str,
    /// The hosts.
    pub hosts: &'a [String],
}

/// The reason why nothing can be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unplaceable {
    /// No host is ready and open for new objects, with the number of hosts by state.
    NoHost(String),
    /// There is no open host in the wanted zone; these zones have one.
    NoZone(Vec<String>),
    /// The host that it is bound to is not open or not in the wanted zone.
    NotThere(String),
    /// No host has reported its resources.
    NoReport,
    /// No host has room for it: how many are refused for which reason. Of several hosts none is named.
    NoRoom(String),
}

/// The host to put something on: among those with room the one with the most memory left, or for volumes alone the most disk.
/// Ties go to the first name.
///
/// # Errors
/// If there is none, the first reason that excludes all of them.
pub fn choose<'a>(hosts: &'a [HostFacts], need: &Need<'_>) -> Result<&'a HostFacts, Unplaceable> {
    let open: Vec<&HostFacts> = hosts.iter().filter(|host| host.is_open).collect();
    if open.is_empty() {
        let mut names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        names.sort_unstable();
        let found = if names.is_empty() { "there is none".into() } else { format!("{} not ready", names.join(", ")) };
        return Err(Unplaceable::NoHost(found));
    }
    let is_in_zone = |host: &&HostFacts| need.zone.is_none() || host.zone.as_deref() == need.zone;
    let candidates: Vec<&HostFacts> = match need.host {
        Some(name) => {
            let bound = open.iter().copied().find(|host| host.name == name && is_in_zone(host));
            vec![bound.ok_or_else(|| Unplaceable::NotThere(name.to_owned()))?]
        }
        None => open.iter().copied().filter(is_in_zone).collect(),
    };
    if candidates.is_empty() {
        let mut zones: Vec<String> = open.iter().filter_map(|host| host.zone.clone()).collect();
        zones.sort_unstable();
        zones.dedup();
        return Err(Unplaceable::NoZone(zones));
    }
    // By memory where memory is needed, by disk otherwise.
    let left = |host: &HostFacts| if need.memory_bytes > 0 { host.free_memory() } else { host.free_disk() };
    let mut best: Option<&HostFacts> = None;
    let mut refusals: Vec<(&str, Refusal<'_>)> = vec![];
    for host in candidates {
        let Some(room) = host.room else { continue };
        match refusal(host, room, need) {
            Some(why) => refusals.push((host.name.as_str(), why)),
            None => {
                let is_better =
                    |best: &HostFacts| left(host) > left(best) || (left(host) == left(best) && host.name < best.name);
                if best.is_none_or(is_better) {
                    best = Some(host);
                }
            }
        }
    }
    match best {
        Some(best) => Ok(best),
        None if refusals.is_empty() => Err(Unplaceable::NoReport),
        None => Err(Unplaceable::NoRoom(describe(&refusals))),
    }
}

/// Why a host is not chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal<'a> {
    /// It runs a virtual machine of the same placement group.
    Spread(&'a str),
    /// It has only so many processors.
    Cpus(u32),
    /// It has only so much memory free, of so much.
    Memory(u64, u64),
    /// It has only so much disk free, of so much.
    Disk(u64, u64),
    /// The store refused it a moment ago.
    Store(&'a str),
}

/// Returns the reason why this host has no room.
fn refusal<'a>(host: &'a HostFacts, room: Room, need: &Need<'a>) -> Option<Refusal<'a>> {
    if let Some(spread) = need.spread.filter(|spread| spread.hosts.contains(&host.name)) {
        return Some(Refusal::Spread(spread.group));
    }
    if need.vcpus > room.cpus {
        return Some(Refusal::Cpus(room.cpus));
    }
    if need.memory_bytes > host.free_memory() {
        return Some(Refusal::Memory(host.free_memory(), room.memory_bytes));
    }
    if need.disk_bytes > host.free_disk() {
        return Some(Refusal::Disk(host.free_disk(), room.disk_bytes));
    }
    host.refused.as_deref().map(Refusal::Store)
}

/// A host alone is named with its numbers; of several it is counted how many are refused for which reason.
fn describe(refusals: &[(&str, Refusal<'_>)]) -> String {
    if let [(name, refusal)] = refusals {
        return match refusal {
            Refusal::Spread(group) => format!("{name} already runs a VM of placement group \"{group}\""),
            Refusal::Cpus(cpus) => format!("{name} has {cpus} CPUs"),
            Refusal::Memory(free, all) => format!("{name} has {} of {} free", gigabytes(*free), gigabytes(*all)),
            Refusal::Disk(free, all) => {
                format!("{name} has {} of {} of disk free", gigabytes(*free), gigabytes(*all))
            }
            Refusal::Store(why) => (*why).to_owned(),
        };
    }
    let of = |amount: &dyn Fn(&Refusal<'_>) -> Option<u64>| -> Vec<u64> {
        refusals.iter().filter_map(|(_, refusal)| amount(refusal)).collect()
    };
    let mut parts = vec![];
    if let Some(group) = refusals.iter().find_map(|(_, refusal)| match refusal {
        Refusal::Spread(group) => Some(group),
        _ => None,
    }) {
        let count = of(&|refusal| matches!(refusal, Refusal::Spread(_)).then_some(0)).len();
        let run = if count == 1 { "runs" } else { "run" };
        parts.push(format!("{count} already {run} a VM of placement group \"{group}\""));
    }
    let cpus = of(&|refusal| if let Refusal::Cpus(cpus) = refusal { Some(u64::from(*cpus)) } else { None });
    parts.extend(most(&cpus, |cpus| format!("{cpus} CPUs")));
    let memory = of(&|refusal| if let Refusal::Memory(free, _) = refusal { Some(*free) } else { None });
    parts.extend(most(&memory, |free| format!("{} of memory free", gigabytes(free))));
    let disk = of(&|refusal| if let Refusal::Disk(free, _) = refusal { Some(*free) } else { None });
    parts.extend(most(&disk, |free| format!("{} of disk free", gigabytes(free))));
    let mut others: BTreeMap<String, usize> = BTreeMap::new();
    for (name, refusal) in refusals {
        if let Refusal::Store(why) = refusal {
            // What the store says of a host names it; what it says of a resource group holds for every host.
            let is_own = why.contains(&format!("host/{name} "));
            let why =
                if is_own { "gave its room to another a moment ago".into() } else { format!("refused it: {why}") };
            *others.entry(why).or_default() += 1;
        }
    }
    parts.extend(others.into_iter().map(|(why, count)| format!("{count} {why}")));
    format!("{} hosts: {}", refusals.len(), parts.join(", "))
}

/// How many hosts have how much: all of them the same, or at most.
fn most(amounts: &[u64], text: impl Fn(u64) -> String) -> Option<String> {
    let (most, least) = (amounts.iter().max()?, amounts.iter().min()?);
    let count = amounts.len();
    let (most, least) = (text(*most), text(*least));
    Some(match count {
        1 => format!("1 has {most}"),
        _ if most == least => format!("{count} have {most}"),
        _ => format!("{count} have at most {most}"),
    })
}
