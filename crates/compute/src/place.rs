//! Zones, and sentences for users about why something has no host. Pure.

use evroc_api::conditions::Verdict;
use evroc_placement::Unplaceable;

use crate::reasons::PENDING;

/// The reason why there is no host in the wanted zone, or none at all; `None` for reasons that depend on the object. `from` says what
/// wants the zone.
pub(crate) fn no_host(why: &Unplaceable, zone: Option<&str>, from: &str) -> Option<String> {
    match why {
        Unplaceable::NoHost(found) => {
            Some(format!("expected a host that is ready, found: {found}; `evrocd status` says why"))
        }
        Unplaceable::NoZone(zones) => Some(no_zone(zones, zone.unwrap_or_default(), from)),
        Unplaceable::NotThere(_) | Unplaceable::NoReport | Unplaceable::NoRoom(_) => None,
    }
}

/// Why an object that wants a zone is not usable; `zones` are those of all hosts.
pub(crate) fn unknown_zone(zone: Option<&str>, zones: &[String]) -> Option<Verdict> {
    let zone = zone.filter(|zone| !zones.iter().any(|known| known == zone))?;
    Some(Verdict::no(PENDING, no_zone(zones, zone, "spec.placement.zone")))
}

fn no_zone(zones: &[String], zone: &str, from: &str) -> String {
    format!("{from}: expected a zone that has a host ({}), found \"{zone}\"", zones.join(", "))
}
