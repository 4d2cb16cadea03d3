//! A machine's control group, on v1, v2 and hybrid hosts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Period of processor quotas in microseconds; the kernel's default.
const PERIOD_US: u64 = 100_000;
/// Threads of the hypervisor beside the virtual processors: main loop, up to 64 for disk requests, RCU.
const OTHER_THREADS: u64 = 80;

/// The limits of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) vcpus: u32,
    /// Guest memory and the hypervisor's own.
    pub(super) memory_bytes: u64,
}

/// Sets the limits in those of the group's `folders` (one for each hierarchy) that have a controller for one, and returns these:
/// the hypervisor joins them. Others (cpuset of v1 above all, which takes no members before it is set up) are left alone.
pub(super) fn apply(folders: &[PathBuf], limits: Limits) -> io::Result<Vec<PathBuf>> {
    let mut joined = Vec::new();
    for folder in folders {
        let is_v2 = folder.join("cgroup.controllers").exists();
        if is_v2 {
            enable_controllers(folder);
        }
        let mut is_used = is_v2;
        for (file, value) in settings(limits) {
            let path = folder.join(file);
            if path.exists() {
                fs::write(&path, value)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
                is_used = true;
            }
        }
        if is_used {
            joined.push(folder.clone());
        }
    }
    Ok(joined)
}

/// Files of both versions; a hierarchy has those of one. One processor more than the guest has is for the hypervisor's own
/// threads: without it, disk and network of a busy guest would take their time from its processors.
fn settings(limits: Limits) -> Vec<(&'static str, String)> {
    let quota = PERIOD_US * (u64::from(limits.vcpus) + 1);
    let threads = (u64::from(limits.vcpus) + OTHER_THREADS).to_string();
    let memory = limits.memory_bytes.to_string();
    vec![
        ("cpu.max", format!("{quota} {PERIOD_US}")),
        ("cpu.weight", (100 * u64::from(limits.vcpus)).min(10_000).to_string()),
        ("cpu.cfs_period_us", PERIOD_US.to_string()),
        ("cpu.cfs_quota_us", quota.to_string()),
        ("cpu.shares", (1024 * u64::from(limits.vcpus)).min(262_144).to_string()),
        ("memory.max", memory.clone()),
        ("memory.limit_in_bytes", memory),
        ("pids.max", threads),
    ]
}

/// On v2 a group has a controller only if all groups above it pass it on. Only controllers that the host lacks are refused.
fn enable_controllers(folder: &Path) {
    let above: Vec<_> =
        folder.ancestors().skip(1).take_while(|path| path.join("cgroup.controllers").exists()).collect();
    for parent in above.into_iter().rev() {
        for controller in ["cpu", "memory", "pids"] {
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for the files that the kernel makes.
    fn folder(root: &Path, name: &str, files: &[&str]) -> PathBuf {
        let folder = root.join(name);
        fs::create_dir(&folder).unwrap();
        for file in files {
            fs::write(folder.join(file), "").unwrap();
        }
        folder
    }

    #[test]
    fn each_hierarchy_gets_what_it_knows_and_the_rest_is_not_joined() {
        let root = tempfile::tempdir().unwrap();
        let cpu = folder(root.path(), "cpu", &["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"]);
        let memory = folder(root.path(), "memory", &["memory.limit_in_bytes"]);
        let cpuset = folder(root.path(), "cpuset", &["cpuset.cpus"]);
        let unified = folder(root.path(), "unified", &["cgroup.controllers", "cpu.max"]);
        let folders = [cpu.clone(), memory.clone(), cpuset, unified.clone()];
        let joined = apply(&folders, Limits { vcpus: 2, memory_bytes: 1 << 30 }).unwrap();
        assert_eq!(joined, [cpu.clone(), memory.clone(), unified.clone()]);
        let read = |folder: &Path, file| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(read(&cpu, "cpu.cfs_quota_us"), "300000");
        assert_eq!(read(&cpu, "cpu.shares"), "2048");
        assert_eq!(read(&memory, "memory.limit_in_bytes"), "1073741824");
        assert_eq!(read(&unified, "cpu.max"), "300000 100000");
    }
}
