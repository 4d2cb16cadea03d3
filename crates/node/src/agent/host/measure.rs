//! How much a host has, and how much of that guests, containers and volumes may use.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use evroc_api::infra::Capacity;
use thiserror::Error;

use crate::metrics;
use crate::pool::{Pool, PoolError, Usage};

/// Memory that guests and containers do not get, in bytes: the platform's own.
const RESERVED_MEMORY: u64 = 1 << 30;
/// Disk that volumes do not get, in bytes: logs, container images, the platform's own.
const RESERVED_DISK: u64 = 2 << 30;
/// Memory and disk are rounded down to this, in bytes. Less writes the Host for each file that grows; more hides free resources.
const ROUNDING: u64 = 64 << 20;

/// The resources of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// All of it.
    pub capacity: Capacity,
    /// The part that guests, containers and volumes may use in all, including what they use already.
    pub allocatable: Capacity,
}

/// The reason why a host cannot be measured.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum MeasureError {
    #[error("cannot read the host's memory or processors")]
    Machine(#[source] io::Error),
    #[error("cannot measure the host's storage pool")]
    Pool(#[source] PoolError),
}

/// Measures the resources of a host: the machine itself, or numbers for a simulated host.
#[async_trait]
pub trait Measure: Send + Sync {
    /// Measures the host now.
    async fn measure(&self) -> Result<Measured, MeasureError>;
}

/// The machine that this program runs on.
pub struct ThisHost {
    meminfo: PathBuf,
    pool: Arc<dyn Pool>,
}

impl ThisHost {
    /// `pool` holds the host's volumes.
    pub fn new(pool: Arc<dyn Pool>) -> Self {
        Self { meminfo: "/proc/meminfo".into(), pool }
    }
}

#[async_trait]
impl Measure for ThisHost {
    async fn measure(&self) -> Result<Measured, MeasureError> {
        let cpus = std::thread::available_parallelism().map_err(MeasureError::Machine)?.get();
        let memory_bytes = memory(&self.meminfo).map_err(MeasureError::Machine)?;
        let usage = self.pool.usage().await.map_err(MeasureError::Pool)?;
        metrics::pool(&usage);
        Ok(measured(u32::try_from(cpus).unwrap_or(u32::MAX), memory_bytes, usage))
    }
}

/// The allocatable disk does not shrink while volumes fill up: the space they occupy is part of it.
fn measured(cpus: u32, memory_bytes: u64, usage: Usage) -> Measured {
    let disk_bytes = usage.free_bytes + usage.occupied_bytes;
    Measured {
        capacity: Capacity { cpus, memory_bytes: round(memory_bytes), disk_bytes: round(usage.capacity_bytes) },
        allocatable: Capacity {
            cpus,
            memory_bytes: round(memory_bytes.saturating_sub(RESERVED_MEMORY)),
            disk_bytes: round(disk_bytes.saturating_sub(RESERVED_DISK)),
        },
    }
}

fn round(bytes: u64) -> u64 {
    bytes - bytes % ROUNDING
}

/// `MemTotal` of /proc/meminfo, which is in KiB.
fn memory(meminfo: &std::path::Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(meminfo)?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("{} has no MemTotal", meminfo.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocatable_disk_does_not_shrink_while_volumes_fill_up() {
        const GIB: u64 = 1 << 30;
        let usage = |occupied: u64| Usage {
            capacity_bytes: 100 * GIB,
            free_bytes: (90 - occupied) * GIB,
            occupied_bytes: occupied * GIB,
            provisioned_bytes: 500 * GIB,
        };
        let empty = measured(4, 16 * GIB, usage(0));
        assert_eq!(measured(4, 16 * GIB, usage(40)), empty);
        assert_eq!(empty.allocatable, Capacity { cpus: 4, memory_bytes: 15 * GIB, disk_bytes: 88 * GIB });
        assert_eq!(empty.capacity, Capacity { cpus: 4, memory_bytes: 16 * GIB, disk_bytes: 100 * GIB });
    }
}
