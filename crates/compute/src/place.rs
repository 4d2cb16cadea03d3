//! Sentences for users about why something has no host. Pure.

use evroc_placement::Unplaceable;

/// The reason why there is no host in the wanted zone, or none at all; `None` for reasons that depend on the object.
pub(crate) fn no_host(why: &Unplaceable, zone: Option<&str>) -> Option<String> {
    match why {
        Unplaceable::NoHost(found) => {
            Some(format!("expected a host that is ready, found: {found}; `evrocd status` says why"))
        }
        Unplaceable::NoZone(zones) => Some(format!(
            "spec.placement.zone: expected a zone that has a host ({}), found \"{}\"",
            zones.join(", "),
            zone.unwrap_or_default()
        )),
        Unplaceable::NotThere(_) | Unplaceable::NoReport | Unplaceable::NoRoom(_) => None,
    }
}
