//! The host of a disk: with its siblings. Pure.

use evroc_api::conditions::Verdict;
use evroc_placement::{Need, Unplaceable, choose, gigabytes};

use super::observe::{Observed, Sibling};
use crate::place::no_host;
use crate::reasons::{PENDING, UNSCHEDULABLE};

/// The host for a volume of this many bytes, or why there is none.
pub(super) fn host(observed: &Observed, bytes: u64) -> Result<String, Verdict> {
    let zone = observed.disk.spec.placement.as_ref().and_then(|placement| placement.zone.as_deref());
    let alone = Need { zone, disk_bytes: bytes, ..Need::default() };
    let need = match bound_host(observed, zone) {
        Some(host) => Need { host: Some(host), ..alone },
        None => {
            let unbound = observed.siblings.iter().map(|sibling| match sibling {
                Sibling::Unbound(bytes) => *bytes,
                Sibling::Bound(_) => 0,
            });
            Need { disk_bytes: unbound.fold(bytes, u64::saturating_add), ..alone }
        }
    };
    // Where the machine fits as well, if there is such a host: another machine may still end before this one starts.
    let with_machine = Need { memory_bytes: observed.memory_bytes, ..need };
    choose(&observed.hosts, &with_machine)
        .or_else(|_| choose(&observed.hosts, &need))
        .map(|host| host.name.clone())
        .map_err(|why| sentence(why, &need, bytes))
}

/// The host of a sibling. A zone that the user wants counts more; the virtual machine then says which disks are apart.
fn bound_host<'a>(observed: &'a Observed, zone: Option<&str>) -> Option<&'a str> {
    let bound = observed.siblings.iter().find_map(|sibling| match sibling {
        Sibling::Bound(host) => Some(host.as_str()),
        Sibling::Unbound(_) => None,
    })?;
    let is_in_zone = |name: &str| {
        zone.is_none() || observed.hosts.iter().any(|host| host.name == name && host.zone.as_deref() == zone)
    };
    Some(bound).filter(|name| is_in_zone(name))
}

fn sentence(why: Unplaceable, need: &Need<'_>, bytes: u64) -> Verdict {
    let together = if need.disk_bytes > bytes {
        format!(" ({} together with the other disks of its VM)", gigabytes(need.disk_bytes))
    } else {
        String::new()
    };
    match why {
        Unplaceable::NoRoom(hosts) => Verdict::no(
            UNSCHEDULABLE,
            format!(
                "spec.diskSize: {} of disk are needed{together}, but {hosts}; choose a smaller size, or delete a disk that is not needed",
                gigabytes(bytes)
            ),
        ),
        Unplaceable::NotThere(host) => Verdict::no(
            PENDING,
            format!("the other disks of its VM are on host {host}, which is not ready or not in the wanted zone"),
        ),
        Unplaceable::NoReport => Verdict::no(PENDING, "no host has reported its disk space yet"),
        other => Verdict::no(PENDING, no_host(&other, need.zone).unwrap_or_default()),
    }
}
