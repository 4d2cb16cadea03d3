//! The facts about hosts that placement uses.

use evroc_api::conditions::{self, READY};
use evroc_api::infra::{Host, Machine, Replica, Volume};
use kube::ResourceExt;

/// A host, and its promised amounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Whether its agent reports that it is at work.
    pub is_ready: bool,
    /// Whether it is ready and not closed for new objects.
    pub is_open: bool,
    /// Its total resources; `None` until it has reported.
    pub room: Option<Room>,
    /// The promises made on it.
    pub promised: Promised,
    /// The machine type that new guests get there.
    pub machine_type: Option<String>,
    /// The processor model that new guests get there.
    pub cpu_model: Option<String>,
    /// The reason why the store refused the object to be placed on this host a moment ago.
    pub refused: Option<String>,
}

/// The resources of a host for guests, containers and volumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Processors; shared by all.
    pub cpus: u32,
    /// Memory in bytes; never shared.
    pub memory_bytes: u64,
    /// Disk in bytes that may be promised to volumes.
    pub disk_bytes: u64,
}

/// The resources of a host that objects take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promised {
    /// Memory of its machines and replicas.
    pub memory_bytes: u64,
    /// The sizes of its volumes, however little of them is written.
    pub disk_bytes: u64,
}

impl HostFacts {
    /// The facts of a host of which `promised` is taken.
    pub fn new(host: &Host, promised: Promised) -> Self {
        let percent = u64::from(host.spec.disk_overcommit_percent.unwrap_or(100));
        let room = host.status.as_ref().and_then(|status| status.allocatable.as_ref()).map(|room| Room {
            cpus: room.cpus,
            memory_bytes: room.memory_bytes,
            // In two steps, so that no disk is too large for the arithmetic.
            disk_bytes: (room.disk_bytes / 100).saturating_mul(percent) + room.disk_bytes % 100 * percent / 100,
        });
        Self {
            name: host.name_any(),
            zone: host.spec.zone.clone(),
            is_ready: is_ready(host),
            is_open: !host.spec.unschedulable && is_ready(host),
            room,
            promised,
            machine_type: host.status.as_ref().and_then(|status| status.machine_types.first().cloned()),
            cpu_model: host.status.as_ref().and_then(|status| status.cpu_models.first().cloned()),
            refused: None,
        }
    }

    /// Memory that nothing is promised of, in bytes.
    pub fn free_memory(&self) -> u64 {
        self.room.map_or(0, |room| room.memory_bytes.saturating_sub(self.promised.memory_bytes))
    }

    /// Disk that nothing is promised of, in bytes.
    pub fn free_disk(&self) -> u64 {
        self.room.map_or(0, |room| room.disk_bytes.saturating_sub(self.promised.disk_bytes))
    }
}

/// Whether a host's agent reports that it is at work.
pub(crate) fn is_ready(host: &Host) -> bool {
    host.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, READY))
}

/// An object that takes resources of a host for as long as it exists, in any state.
pub(crate) trait Takes {
    /// The host and the amounts.
    fn takes(&self) -> (&str, Promised);

    /// Whether it is more than a promise that is taken back where it cannot be kept.
    fn was_used(&self) -> bool {
        true
    }
}

impl Takes for Machine {
    fn takes(&self) -> (&str, Promised) {
        (&self.spec.host_name, Promised { memory_bytes: self.spec.memory_bytes, disk_bytes: 0 })
    }
}

impl Takes for Replica {
    fn takes(&self) -> (&str, Promised) {
        (&self.spec.host_name, Promised { memory_bytes: self.spec.memory_bytes, disk_bytes: 0 })
    }
}

impl Takes for Volume {
    fn takes(&self) -> (&str, Promised) {
        (&self.spec.host_name, Promised { memory_bytes: 0, disk_bytes: self.spec.size_bytes })
    }

    fn was_used(&self) -> bool {
        !self.spec.provisional
    }
}
