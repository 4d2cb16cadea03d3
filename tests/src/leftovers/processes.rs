//! Processes that a test run has started, however far down.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::PREFIX;

/// Set in the environment of everything that the runner starts; children inherit it.
pub const RUN_VARIABLE: &str = "EVROC_TEST_RUN";

/// The first of the uids that instances give to their roles and guests.
const FIRST_INSTANCE_UID: u32 = 1_900_000_000;

/// Every process that can be told to belong to a test run, with its command line; not this one and its ancestors.
pub fn list() -> BTreeSet<String> {
    let ancestors = ancestors();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| !ancestors.contains(pid)).filter_map(describe).collect()
}

fn describe(pid: u32) -> Option<String> {
    let folder = Path::new("/proc").join(pid.to_string());
    let command = fs::read(folder.join("cmdline")).ok()?;
    if command.is_empty() {
        // A kernel thread, or a zombie that its parent has still to collect.
        return None;
    }
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    let environment = fs::read(folder.join("environ")).unwrap_or_default();
    let groups = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
    let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok());
    let ours = has_variable(&environment)
        || groups.contains(&format!("/{PREFIX}"))
        || command.contains(PREFIX)
        || uid.is_some_and(|uid| uid >= FIRST_INSTANCE_UID && uid != u32::MAX - 1);
    // The group names the instance where the command line does not.
    let group = groups.lines().filter_map(|line| line.rsplit(':').next()).find(|group| *group != "/").unwrap_or("/");
    ours.then(|| format!("{pid} ({group}) {}", command.chars().take(160).collect::<String>()))
}

fn has_variable(environment: &[u8]) -> bool {
    environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(RUN_VARIABLE.as_bytes()))
}

/// This process and those above it: they carry the run's name and are not left over.
fn ancestors() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut pid = std::process::id();
    while pid > 1 && found.insert(pid) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        pid = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap_or(0);
    }
    found
}
