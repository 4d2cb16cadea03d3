//! The limits of a role on the machine: memory, by a control group of its own, and its place when the kernel runs out of memory.
//!
//! ```text
//! /<instance>/roles/<role>   one process: control, edge or node; limited
//! /<instance>/shims          parents of guests and containers: leave the node's group, so that its limit never ends one
//! ```
//! A role over its limit is ended by the kernel and started again by the supervisor; guests and containers go on. Without the limit, a
//! leak in a role would make the kernel choose among the tenants' guests. A host that cannot limit (no memory controller) runs roles
//! without a limit, and the log reports it.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use evroc_controller::chain;
use evroc_node::cgroup::{Cgroups, shims_group};

use crate::roles::Role;

const MIB: u64 = 1 << 20;

fn role_group(instance: &str, role: Role) -> String {
    format!("/{instance}/roles/{role}")
}

/// The memory that a role may use on a machine with `total` bytes: a share of the machine, but never less than what an idle role needs
/// several times over. Too low ends roles that only have much to do; too high lets a leak take the memory of guests.
fn memory_limit(role: Role, total: u64) -> u64 {
    let (share, least) = match role {
        // Objects and their caches grow with the cloud.
        Role::Control => (4, 768 * MIB),
        // Connections, 64 KiB each.
        Role::Edge => (8, 384 * MIB),
        // Images on their way in; page cache counts, and is given back under pressure.
        Role::Node => (8, 512 * MIB),
    };
    (total / share).max(least)
}

/// Makes the group of a role, limits it, and opens what the new process writes itself into. None on a host that cannot limit.
pub fn prepare(instance: &str, role: Role) -> Vec<File> {
    let group = role_group(instance, role);
    let prepared = total_memory().map_err(|error| chain(&error)).and_then(|total| {
        let cgroups = Cgroups::discover().map_err(|error| chain(&error))?;
        let folders = cgroups.limit_memory(&group, Some(memory_limit(role, total))).map_err(|error| chain(&error))?;
        open_members(&folders).map_err(|error| chain(&error))
    });
    prepared.unwrap_or_else(|error| {
        tracing::warn!(%role, error, "the role runs without a limit on its memory");
        vec![]
    })
}

fn open_members(folders: &[PathBuf]) -> io::Result<Vec<File>> {
    folders.iter().map(|folder| File::options().write(true).open(folder.join("cgroup.procs"))).collect()
}

/// Removes the groups of an instance that have no member any more.
pub fn remove_unused(instance: &str) {
    let Ok(cgroups) = Cgroups::discover() else { return };
    let roles = [Role::Control, Role::Edge, Role::Node].map(|role| role_group(instance, role));
    for group in roles.into_iter().chain([shims_group(instance)]) {
        cgroups.remove_unused(&group);
    }
}

fn total_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_size_of_the_host() {
        const GIB: u64 = 1 << 30;
        let limits = |total| [Role::Control, Role::Edge, Role::Node].map(|role| memory_limit(role, total) / MIB);
        assert_eq!(limits(2 * GIB), [768, 384, 512]);
        assert_eq!(limits(24 * GIB), [6144, 3072, 3072]);
        assert_eq!(limits(256 * GIB), [65536, 32768, 32768]);
    }
}
