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

/// The group of an instance's shims: it leaves the group of the node, whose limit must never end the parent of a guest.
pub fn shims_group(instance: &str) -> String {
    format!("/{instance}/shims")
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
                make_folder(&path)?;
            }
        }
        Ok(())
    }

    /// Makes the group where memory can be limited, with a limit of `bytes` or none, and returns its folders there: a process that joins
    /// them keeps its groups in all other hierarchies. An error if `bytes` cannot be limited on this host.
    pub fn limit_memory(&self, group: &str, bytes: Option<u64>) -> Result<Vec<PathBuf>, CgroupError> {
        let _exclusive = TREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folders = Vec::new();
        for root in &self.memory {
            let is_v2 = root.join("cgroup.controllers").exists();
            // The unified tree of a hybrid host does not limit memory.
            if is_v2 && !fs::read_to_string(root.join("cgroup.controllers")).is_ok_and(|all| all.contains("memory")) {
                continue;
            }
            let mut path = root.clone();
            for part in group.split('/').filter(|part| !part.is_empty()) {
                if is_v2 {
                    let control = path.join("cgroup.subtree_control");
                    fs::write(&control, "+memory")
                        .map_err(|source| CgroupError::new("enable memory in", &control, source))?;
                }
                path.push(part);
                make_folder(&path)?;
            }
            let (file, none) = if is_v2 { ("memory.max", "max") } else { ("memory.limit_in_bytes", "-1") };
            let file = path.join(file);
            fs::write(&file, bytes.map_or(none.to_owned(), |bytes| bytes.to_string()))
                .map_err(|source| CgroupError::new("write", &file, source))?;
            folders.push(path);
        }
        if folders.is_empty() && bytes.is_some() {
            let source = io::Error::new(io::ErrorKind::Unsupported, "no hierarchy with a memory controller is mounted");
            return Err(CgroupError::new("limit the memory of", Path::new(group), source));
        }
        Ok(folders)
    }

    /// Removes the group, and those above it, where they have neither members nor groups below.
    pub fn remove_unused(&self, group: &str) {
        let _exclusive = TREE.lock().unwrap_or_else(PoisonError::into_inner);
        let depth = group.split('/').filter(|part| !part.is_empty()).count();
        for folder in self.folders(group) {
            for part in folder.ancestors().take(depth) {
                match fs::remove_dir(part) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => break,
                    _ => {}
                }
            }
        }
    }

    /// Kills all members of the group and removes it, and the groups above it that are empty then. Blocking. Removing an absent group
    /// is fine.
    pub fn remove(&self, group: &str) -> Result<(), CgroupError> {
        let deadline = Instant::now() + DEATH_DEADLINE;
        for folder in self.folders(group) {
            kill_and_remove(&folder, deadline)?;
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

    /// Kills all members of the group and of those below it, and removes them. Blocking. Goes on where one cannot be removed; the first error is
    /// returned.
    pub fn remove_tree(&self, group: &str) -> Result<(), CgroupError> {
        let deadline = Instant::now() + DEATH_DEADLINE;
        let mut outcome = Ok(());
        for folder in self.tree(group) {
            outcome = outcome.and(kill_and_remove(&folder, deadline));
        }
        outcome
    }

    /// The processes in the group and below it, in all hierarchies.
    pub fn members(&self, group: &str) -> BTreeSet<i32> {
        let texts =
            self.tree(group).into_iter().filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
        // 0 is a process of another pid namespace.
        texts
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .filter(|pid| *pid > 0)
            .collect()
    }

    /// The folders of the group and of all groups below it, in all hierarchies, deepest first.
    fn tree(&self, group: &str) -> Vec<PathBuf> {
        fn collect(folder: PathBuf, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    collect(entry.path(), found);
                }
            }
            found.push(folder);
        }
        let mut found = Vec::new();
        self.folders(group).into_iter().filter(|folder| folder.is_dir()).for_each(|folder| collect(folder, &mut found));
        found
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

#[expect(clippy::disallowed_methods, reason = "on a blocking thread, for a condition that cgroup v1 does not report")]
fn kill_and_remove(folder: &Path, deadline: Instant) -> Result<(), CgroupError> {
    kill_members(folder, None);
    let mut pause = Duration::from_micros(200);
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A member that was killed has not left yet; v1 does not report when it has.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                kill_members(folder, None);
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(source) => return Err(CgroupError::new("remove", folder, source)),
        }
    }
}

fn make_folder(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        // Independent of our umask: an unprivileged shim reads the counters in there.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .map_err(|source| CgroupError::new("set mode of", path, source)),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(CgroupError::new("create", path, source)),
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
    fn memory_is_limited_where_a_process_joins_and_nowhere_else() {
        let cgroups = Cgroups::discover().unwrap();
        let name = format!("evroc-test-{}", uuid::Uuid::new_v4().simple());
        let group = format!("/{name}/roles/one");
        let folders = cgroups.limit_memory(&group, Some(300 << 20)).unwrap();
        let limit = |folder: &Path| {
            let files = ["memory.limit_in_bytes", "memory.max"].map(|file| fs::read_to_string(folder.join(file)));
            files.into_iter().find_map(Result::ok).unwrap().trim().to_owned()
        };
        assert!(!folders.is_empty());
        assert!(folders.iter().all(|folder| limit(folder) == (300 << 20).to_string()));
        cgroups.limit_memory(&group, Some(200 << 20)).unwrap();
        assert_eq!(limit(&folders[0]), (200 << 20).to_string(), "changed by the next start");
        let free = cgroups.limit_memory(&format!("/{name}/shims"), None).unwrap();
        assert!(free.iter().all(|folder| limit(folder) == "max" || limit(folder).parse::<u64>().unwrap() > 1 << 50));
        // A process over the limit is ended, and no other.
        let script = "read go; exec head -c 400000000 /dev/zero | tail";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        for folder in &folders {
            fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
        assert!(!child.wait().unwrap().success());
        cgroups.remove_unused(&group);
        cgroups.remove_unused(&format!("/{name}/shims"));
        assert!(cgroups.folders(&name).iter().all(|folder| !folder.exists()));
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
        assert_eq!(cgroups.members(&name), BTreeSet::new());
        for folder in cgroups.folders(&group) {
            // cpuset of v1 takes members only once it has processors.
            let _ = fs::write(folder.join("cgroup.procs"), child.id().to_string());
        }
        assert_eq!(cgroups.members(&name), BTreeSet::from([child.id().cast_signed()]));
        cgroups.remove(&group).unwrap();
        child.wait().unwrap();
        cgroups.remove(&group).unwrap();
        cgroups.create(&group).unwrap();
        cgroups.create(&format!("/{name}/two/three")).unwrap();
        cgroups.remove_tree(&name).unwrap();
        cgroups.remove_tree(&name).unwrap();
        for folder in cgroups.folders(&name) {
            assert!(!folder.exists(), "{}", folder.display());
        }
    }
}
