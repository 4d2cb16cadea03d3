//! Control groups in every hierarchy, because one process leaves up to a dozen behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How deep to look: instance, kind, workload, and what a runtime nests below.
const DEPTH: usize = 5;

/// Every control group below the folder that this process sees as a root, as `<hierarchy>:<path>`.
pub fn list() -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = BTreeSet::new();
    for line in mounts.lines() {
        let Some((fields, tail)) = line.split_once(" - ") else { continue };
        let kind = tail.split(' ').next().unwrap_or_default();
        let Some(root) = fields.split(' ').nth(4).filter(|_| kind == "cgroup" || kind == "cgroup2") else { continue };
        let hierarchy = root.rsplit('/').next().unwrap_or(root);
        walk(Path::new(root), hierarchy, String::new(), 0, &mut found);
    }
    found
}

/// The outermost group that a group is in.
pub fn top(group: &str) -> &str {
    group.match_indices('/').nth(1).map_or(group, |(end, _)| &group[..end])
}

fn walk(folder: &Path, hierarchy: &str, path: String, depth: usize, found: &mut BTreeSet<String>) {
    if depth == DEPTH {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_of_the_system(&name) {
            continue;
        }
        let path = format!("{path}/{name}");
        found.insert(format!("{hierarchy}:{path}"));
        walk(&entry.path(), hierarchy, path, depth + 1, found);
    }
}

/// Groups that systemd and container engines make and remove as they like.
fn is_of_the_system(name: &str) -> bool {
    [".slice", ".scope", ".service", ".mount", ".socket"].iter().any(|suffix| name.ends_with(suffix))
        || ["docker", "kubepods", "lxc", "machine", "user"].contains(&name)
}
