//! Control groups of guests and containers, on v1, v2 and hybrid hosts: one path, in every hierarchy.
//!
//! The runtime makes and removes a container's group, but leaves the folder above it behind in up to ten hierarchies. So we make the
//! groups before it and remove leftovers after it, parents included. Making and removing exclude each other within this
//! process: a parent must not vanish between the making of it and of its child.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long members may take to die after SIGKILL. Only a process stuck in the kernel (a dead network disk) takes longer.
const DEATH_DEADLINE: Duration = Duration::from_secs(10);

static TREE: Mutex<()> = Mutex::new(());

/// A failed operation on a group.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}", path.display())]
pub struct CgroupError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl CgroupError {
    fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }
}

/// The hierarchies of this host.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Vec<PathBuf>,
    memory: Vec<PathBuf>,
    can_limit_swap: bool,
}

impl Cgroups {
    /// Finds the hierarchies that are mounted.
    pub fn discover() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(path).map_err(|source| CgroupError::new("read", path, source))?;
        Ok(Self::from_mountinfo(&text))
    }

    fn from_mountinfo(text: &str) -> Self {
        let (mut hierarchies, mut memory) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let before: Vec<_> = before.split(' ').collect();
            let after: Vec<_> = after.split(' ').collect();
            let (Some(device), Some(point), [kind, _, options, ..]) = (before.get(2), before.get(4), &after[..]) else {
                continue;
            };
            if !kind.starts_with("cgroup") || !seen.insert(device.to_string()) {
                continue;
            }
            let point = PathBuf::from(point);
            if *kind == "cgroup2" || options.split(',').any(|option| option == "memory") {
                memory.push(point.clone());
            }
            hierarchies.push(point);
        }
        let can_limit_swap = memory.iter().all(|root| {
            // On v2 the root has no such file, but every group does.
            root.join("cgroup.controllers").exists() || root.join("memory.memsw.limit_in_bytes").exists()
        });
        Self { hierarchies, memory, can_limit_swap }
    }

    /// Whether a memory limit can include swap.
    pub fn can_limit_swap(&self) -> bool {
        self.can_limit_swap
    }

    /// The folders of `group` (`/evroc/replica-1`) in all hierarchies.
    pub fn folders(&self, group: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|root| root.join(group.trim_start_matches('/'))).collect()
    }

    /// Returns those of them that count OOM kills.
    pub fn memory_folders(&self, group: &str) -> Vec<PathBuf> {
        self.memory.iter().map(|root| root.join(group.trim_start_matches('/'))).collect()
    }

    /// Makes the group in every hierarchy.
    pub fn create(&self, group: &str) -> Result<(), CgroupError> {
        let _exclusive = TREE.lock().unwrap_or_else(PoisonError::into_inner);
        for root in &self.hierarchies {
            let mut path = root.clone();
            for part in group.split('/').filter(|part| !part.is_empty()) {
                path.push(part);
                match fs::create_dir(&path) {
                    // Independent of our umask: an unprivileged shim reads the counters in it.
                    Ok(()) => fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                        .map_err(|source| CgroupError::new("set mode of", &path, source))?,
                    Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(source) => return Err(CgroupError::new("create", &path, source)),
                }
            }
        }
        Ok(())
    }

    /// Kills all members of the group and removes it, and the groups above it that are empty then. Blocking. Removing an absent group
    /// is fine.
    #[expect(
        clippy::disallowed_methods,
        reason = "on a blocking thread, for a condition that cgroup v1 does not report"
    )]
    pub fn remove(&self, group: &str) -> Result<(), CgroupError> {
        let deadline = Instant::now() + DEATH_DEADLINE;
        for folder in self.folders(group) {
            kill_members(&folder, None);
            let mut pause = Duration::from_micros(200);
            loop {
                match fs::remove_dir(&folder) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                    // A member that was killed has not left yet; v1 does not report when it has.
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                        kill_members(&folder, None);
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(50));
                    }
                    Err(source) => return Err(CgroupError::new("remove", &folder, source)),
                }
            }
        }
        let _exclusive = TREE.lock().unwrap_or_else(PoisonError::into_inner);
        let depth = group.split('/').filter(|part| !part.is_empty()).count();
        for folder in self.folders(group) {
            for parent in folder.ancestors().skip(1).take(depth.saturating_sub(1)) {
                if fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Names of the groups directly below `parent`, in any hierarchy.
    pub fn children(&self, parent: &str) -> BTreeSet<String> {
        let entries = self.folders(parent).into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }
}

/// Kills every process in the group but `spared`. The number of a process that ended may pass to a stranger: it is only signalled
/// through a descriptor that was opened while the number stood in the group.
pub(crate) fn kill_members(folder: &Path, spared: Option<Pid>) {
    // One stroke where the kernel has it (v2), else one by one.
    if spared.is_none() && fs::write(folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let members = || fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let pids = members();
    let pids = pids.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw);
    for pid in pids.filter(|pid| Some(*pid) != spared) {
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // The number may have passed to a stranger between reading and opening: look again.
        if members().lines().any(|line| line.parse() == Ok(pid.as_raw_nonzero().get())) {
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_on_every_kind_of_host() {
        let hybrid = "\
24 1 0:22 / /sys rw - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 24 0:27 / /elsewhere/pids rw - cgroup cgroup rw,pids
";
        let cgroups = Cgroups::from_mountinfo(hybrid);
        assert_eq!(
            cgroups.folders("/a/b"),
            ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/pids/a/b", "/sys/fs/cgroup/unified/a/b"].map(PathBuf::from)
        );
        assert_eq!(cgroups.memory_folders("a").len(), 2);
        let v2 = Cgroups::from_mountinfo("30 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(v2.folders("/a"), [PathBuf::from("/sys/fs/cgroup/a")]);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_group_with_a_member_is_removed_with_its_parents() {
        let cgroups = Cgroups::discover().unwrap();
        let name = format!("evroc-test-{}", uuid::Uuid::new_v4().simple());
        let group = format!("/{name}/one");
        cgroups.create(&group).unwrap();
        cgroups.create(&group).unwrap();
        assert_eq!(cgroups.children(&name), BTreeSet::from(["one".to_owned()]));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        for folder in cgroups.folders(&group) {
            // cpuset of v1 takes members only once it has processors.
            let _ = fs::write(folder.join("cgroup.procs"), child.id().to_string());
        }
        cgroups.remove(&group).unwrap();
        child.wait().unwrap();
        cgroups.remove(&group).unwrap();
        for folder in cgroups.folders(&name) {
            assert!(!folder.exists(), "{}", folder.display());
        }
    }
}
