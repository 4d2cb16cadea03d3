//! State, run files, instance files, temporary files, mounts and lines of /etc/hosts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::foreign::REGISTRY;
use crate::PREFIX;

/// Folders whose every new entry counts.
const WATCHED: &[&str] = &["/var/lib", "/run", REGISTRY];

/// Entries that tools of the system make in a watched folder when they are first used.
const OF_THE_SYSTEM: &[&str] = &[
    "/run/xtables.lock",
    "/run/sudo",
    "/run/netns",
    "/run/lock",
    "/run/user",
    "/run/utmp",
    "/run/blkid",
    "/run/mount",
    "/run/udev",
    "/run/systemd",
    // Debian's Python, when it is installed.
    "/var/lib/python",
    // skopeo's memory of where it saw which blob.
    "/var/lib/containers",
    REGISTRY,
];

/// Mounts below these come and go with logins and container engines.
const MOUNTS_OF_THE_SYSTEM: &[&str] =
    &["/run/user/", "/run/docker/", "/var/lib/docker/", "/proc/", "/run/credentials/"];

/// Files and folders that count.
pub fn list() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = WATCHED.iter().flat_map(|folder| entries(Path::new(folder))).collect();
    // Locks that all instances of the machine share begin with a dot; they stay, as the folder does.
    let is_shared_lock = |path: &str| path.strip_prefix(REGISTRY).is_some_and(|name| name.starts_with("/."));
    found.retain(|path| !OF_THE_SYSTEM.contains(&path.as_str()) && !is_package_state(path) && !is_shared_lock(path));
    // Other programs make temporary files all the time; those of the cloud and its tests carry their names.
    let temporary = ["/tmp", "/var/tmp", "/dev/shm"].iter().flat_map(|folder| entries(Path::new(folder)));
    found.extend(temporary.filter(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.starts_with(PREFIX) || name.starts_with("evroc")
    }));
    if let Some(home) = std::env::var_os("HOME") {
        found.extend(entries(&PathBuf::from(home).join(".evroc")));
    }
    found
}

/// Returns where something is mounted.
pub fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        // Made by the first `ip netns add`; the namespaces in it are looked at by name.
        .filter(|point| *point != "/run/netns")
        .filter(|point| !MOUNTS_OF_THE_SYSTEM.iter().any(|folder| point.starts_with(folder)))
        .map(str::to_owned)
        .collect()
}

/// Lists the lines of /etc/hosts, each with the marked block that contains it, so that the owner is known.
pub fn hosts_lines() -> BTreeSet<String> {
    lines_with_block(&fs::read_to_string("/etc/hosts").unwrap_or_default())
}

/// A block is between two comments that have `begin` and `end`; the rest of them names the owner.
fn lines_with_block(hosts: &str) -> BTreeSet<String> {
    let mut block = String::new();
    let mut found = BTreeSet::new();
    for line in hosts.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let comment = line.starts_with('#').then(|| line.to_lowercase());
        if comment.as_ref().is_some_and(|comment| comment.contains("begin")) {
            block = line.trim_start_matches('#').trim().to_owned();
        }
        found.insert(if block.is_empty() { line.to_owned() } else { format!("{line} ({block})") });
        if comment.is_some_and(|comment| comment.contains("end")) && !line.to_lowercase().contains("begin") {
            block.clear();
        }
    }
    found
}

/// Folders that package managers make for what they install.
fn is_package_state(path: &str) -> bool {
    Path::new("/var/lib/dpkg/info").join(format!("{}.list", path.rsplit('/').next().unwrap_or_default())).exists()
}

fn entries(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_block_names_its_owner() {
        let lines = lines_with_block(
            "127.0.0.1 localhost\n# begin evroc instance evt-1\n127.0.0.1 api.evroc.localhost\n# end evroc instance evt-1\n::1 x\n",
        );
        assert!(lines.contains("127.0.0.1 api.evroc.localhost (begin evroc instance evt-1)"), "{lines:?}");
        assert!(lines.contains("::1 x") && lines.contains("127.0.0.1 localhost"), "{lines:?}");
    }
}
