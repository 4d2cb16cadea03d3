//! The resources of a host, and its faults.

use std::collections::BTreeSet;

use evroc_node::container::memory::MemoryContainers;
use evroc_node::machine::memory::MemoryGuests;

/// The resources of a host.
#[derive(Clone, Copy, Debug)]
pub struct HostSize {
    /// Processors.
    pub cpus: u32,
    /// Memory in GB.
    pub memory_gb: u64,
    /// Disk in GB.
    pub disk_gb: u64,
}

impl Default for HostSize {
    fn default() -> Self {
        Self { cpus: 4, memory_gb: 16, disk_gb: 200 }
    }
}

/// How a host misbehaves; by default not at all.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Neither reads nor writes: the agents were killed, their workloads run on. They start again when this ends.
    pub is_silent: bool,
    /// Reports itself as not ready.
    pub is_unready: bool,
    /// Images that are not on the host: volumes of them fail.
    pub missing_images: BTreeSet<String>,
    /// It cannot be found out which volumes exist.
    pub pool_cannot_look: bool,
    /// Volumes are never made.
    pub volumes_never_ready: bool,
    /// Deleted volumes are never removed.
    pub volumes_never_go: bool,
    /// It is not found out how guests run: machines stay `Pending`.
    pub probe_never_ends: bool,
    /// Machines cannot be started, for this reason.
    pub start_failure: Option<String>,
    /// Guests never come up.
    pub guests_never_ready: bool,
    /// Guests do not power off on request.
    pub machines_never_end: bool,
    /// Looking at guests and containers fails, for this reason.
    pub cannot_look: Option<String>,
    /// Containers cannot be started, for this reason.
    pub container_failure: Option<String>,
    /// Programs in containers exit with this code at once.
    pub containers_exit: Option<i32>,
    /// Images of containers never arrive.
    pub images_never_arrive: bool,
    /// Containers never accept connections.
    pub replicas_never_ready: bool,
}

impl Behaviour {
    /// Plants the faults into the drivers.
    pub(super) fn plant(&self, guests: &MemoryGuests, containers: &MemoryContainers) {
        guests.set(|faults| {
            faults.look.clone_from(&self.cannot_look);
            faults.start.clone_from(&self.start_failure);
            faults.never_ends = self.machines_never_end;
            faults.never_greets = self.guests_never_ready;
        });
        containers.set(|faults| {
            faults.look.clone_from(&self.cannot_look);
            faults.start.clone_from(&self.container_failure);
            faults.exits = self.containers_exit;
            faults.pull_hangs = self.images_never_arrive;
            faults.never_ready = self.replicas_never_ready;
        });
    }
}
