//! The disks of a running guest: wanted against actual, as the hypervisor answers. Pure.
//!
//! Disks of the command line cannot be taken from a running guest (their PCI slots are fixed); those leave with the next start.

/// A disk that a guest should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedDisk {
    /// Uid of its volume.
    pub volume: String,
    /// The serial number that the guest should see.
    pub serial: String,
    /// Size that the guest should see, in bytes; `None` leaves it as it is.
    pub size_bytes: Option<u64>,
}

/// A disk that a guest has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDisk {
    /// The monitor's name of it.
    pub id: String,
    /// Uid of its volume.
    pub volume: String,
    /// Size that the guest sees, in bytes.
    pub size_bytes: u64,
    /// Whether it was attached to the running guest, so that it can be detached again.
    pub is_hot: bool,
}

/// One thing to do at a running guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Grow a disk and notify the guest.
    Grow {
        /// The monitor's name of it.
        id: String,
        /// Uid of its volume.
        volume: String,
        /// The new size.
        size_bytes: u64,
    },
    /// Take a disk away.
    Detach {
        /// The monitor's name of it.
        id: String,
        /// Uid of its volume.
        volume: String,
    },
    /// Add a disk.
    Attach {
        /// Uid of its volume.
        volume: String,
        /// The serial number that the guest sees.
        serial: String,
    },
}

/// Returns the changes that bring the guest to its wanted disks. A disk never shrinks.
pub fn diff(wanted: &[WantedDisk], actual: &[GuestDisk]) -> Vec<Change> {
    let has = |volume: &str| actual.iter().find(|disk| disk.volume == volume);
    let grow = wanted.iter().filter_map(|want| {
        let size_bytes = want.size_bytes?;
        let found = has(&want.volume).filter(|found| found.size_bytes < size_bytes)?;
        Some(Change::Grow { id: found.id.clone(), volume: want.volume.clone(), size_bytes })
    });
    let detach = actual
        .iter()
        .filter(|disk| disk.is_hot && !wanted.iter().any(|want| want.volume == disk.volume))
        .map(|disk| Change::Detach { id: disk.id.clone(), volume: disk.volume.clone() });
    let attach = wanted
        .iter()
        .filter(|want| has(&want.volume).is_none())
        .map(|want| Change::Attach { volume: want.volume.clone(), serial: want.serial.clone() });
    // Detached before attached: names and addresses become free.
    grow.chain(detach).chain(attach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(volume: &str, size_bytes: u64) -> WantedDisk {
        WantedDisk { volume: volume.into(), serial: format!("of-{volume}"), size_bytes: Some(size_bytes) }
    }

    fn actual(id: &str, volume: &str, size_bytes: u64, is_hot: bool) -> GuestDisk {
        GuestDisk { id: id.into(), volume: volume.into(), size_bytes, is_hot }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let disk0 = || actual("disk0", "a", 10, false);
        let hot = || actual("hot-b", "b", 10, true);
        let grow = || Change::Grow { id: "disk0".into(), volume: "a".into(), size_bytes: 20 };
        let detach = || Change::Detach { id: "hot-b".into(), volume: "b".into() };
        let attach = |volume: &str| Change::Attach { volume: volume.into(), serial: format!("of-{volume}") };
        for (name, want, have, expected) in [
            ("as it is", vec![wanted("a", 10)], vec![disk0()], vec![]),
            ("grown", vec![wanted("a", 20)], vec![disk0()], vec![grow()]),
            ("never shrunk", vec![wanted("a", 5)], vec![disk0()], vec![]),
            ("new", vec![wanted("a", 10), wanted("b", 10)], vec![disk0()], vec![attach("b")]),
            ("attached before", vec![wanted("a", 10), wanted("b", 10)], vec![disk0(), hot()], vec![]),
            ("not wanted", vec![wanted("a", 10)], vec![disk0(), hot()], vec![detach()]),
            ("of the command line", vec![], vec![disk0()], vec![]),
            (
                "all at once",
                vec![wanted("a", 20), wanted("c", 10)],
                vec![disk0(), hot()],
                vec![grow(), detach(), attach("c")],
            ),
        ] {
            assert_eq!(diff(&want, &have), expected, "{name}");
        }
    }

    #[test]
    fn after_the_changes_nothing_is_left_to_do() {
        let want = [wanted("a", 20), wanted("c", 10)];
        let mut have = vec![actual("disk0", "a", 10, false), actual("hot-b", "b", 5, true)];
        for change in diff(&want, &have) {
            match change {
                Change::Grow { id, size_bytes, .. } => {
                    have.iter_mut().filter(|disk| disk.id == id).for_each(|disk| disk.size_bytes = size_bytes);
                }
                Change::Detach { id, .. } => have.retain(|disk| disk.id != id),
                Change::Attach { volume, .. } => have.push(actual("hot", &volume, 10, true)),
            }
        }
        assert_eq!(diff(&want, &have), vec![]);
    }
}
