//! The choice: pure.

use crate::facts::{HostFacts, Room};
use crate::gigabytes;

/// How many hosts a refusal describes one by one; the others are counted.
const DESCRIBED: usize = 3;

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
    /// No host has room for it: for each, or for some and a count, why.
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
    let mut refusals = vec![];
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
        None => Err(Unplaceable::NoRoom(describe(refusals))),
    }
}

/// Returns the reason why this host has no room.
fn refusal(host: &HostFacts, room: Room, need: &Need<'_>) -> Option<String> {
    let name = &host.name;
    if need.vcpus > room.cpus {
        return Some(format!("{name} has {} CPUs", room.cpus));
    }
    if need.memory_bytes > host.free_memory() {
        let (free, all) = (gigabytes(host.free_memory()), gigabytes(room.memory_bytes));
        return Some(format!("{name} has {free} of {all} free"));
    }
    if need.disk_bytes > host.free_disk() {
        let (free, all) = (gigabytes(host.free_disk()), gigabytes(room.disk_bytes));
        return Some(format!("{name} has {free} of {all} of disk free"));
    }
    host.refused.clone()
}

fn describe(mut refusals: Vec<(&str, String)>) -> String {
    refusals.sort_unstable();
    let others = refusals.len().saturating_sub(DESCRIBED);
    let mut described: Vec<String> = refusals.into_iter().take(DESCRIBED).map(|(_, why)| why).collect();
    match others {
        0 => {}
        1 => described.push("1 more host has no room either".into()),
        _ => described.push(format!("{others} more hosts have no room either")),
    }
    described.join(", ")
}
