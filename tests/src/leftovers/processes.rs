//! Processes that a test run has started, however far down.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::PREFIX;

/// Set in the environment of everything that the runner starts; children inherit it.
pub const RUN_VARIABLE: &str = "EVROC_TEST_RUN";

/// The first of the uids that instances give to their roles and guests.
const FIRST_INSTANCE_UID: u32 = 1_900_000_000;

/// The uid that programs take for "no user"; never an instance's.
const NO_UID: u32 = u32::MAX - 1;

/// A process, as /proc describes it.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The user it runs as.
    pub uid: u32,
    /// Its control group: the first that is not the root's.
    pub group: String,
    /// Its command line, arguments separated by blanks.
    pub command: String,
    groups: String,
    environment: Vec<u8>,
}

impl Process {
    /// Looks at one process; none for those that have ended and for kernel threads.
    pub fn read(pid: u32) -> Option<Process> {
        let folder = Path::new("/proc").join(pid.to_string());
        let command = fs::read(folder.join("cmdline")).ok()?;
        let groups = fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
        let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())?;
        let group =
            groups.lines().filter_map(|line| line.rsplit(':').next()).find(|group| *group != "/").unwrap_or("/");
        let process = Process {
            pid,
            uid,
            group: group.to_owned(),
            command: String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned(),
            environment: fs::read(folder.join("environ")).unwrap_or_default(),
            groups,
        };
        (!command.is_empty()).then_some(process)
    }

    /// Whether the run of this name has started it, however far up.
    pub fn is_of_run(&self, run: &str) -> bool {
        let wanted = format!("{RUN_VARIABLE}={run}");
        self.environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    }

    /// Whether the name occurs in its command line, its control groups or its environment.
    pub fn mentions(&self, name: &str) -> bool {
        let environment = String::from_utf8_lossy(&self.environment);
        self.command.contains(name) || self.groups.contains(name) || environment.contains(name)
    }

    /// Whether a test has started it, or something that a test has started.
    fn is_of_a_test(&self) -> bool {
        has_variable(&self.environment)
            || self.groups.contains(&format!("/{PREFIX}"))
            || self.command.contains(PREFIX)
            || (FIRST_INSTANCE_UID..NO_UID).contains(&self.uid)
    }
}

/// Every process of the machine that can be looked at; not this one and its ancestors.
pub fn all() -> Vec<Process> {
    let ancestors = ancestors();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| !ancestors.contains(pid)).filter_map(Process::read).collect()
}

/// Lists every process that recognisably belongs to a test run, with its command line.
pub fn list() -> BTreeSet<String> {
    let ours = all().into_iter().filter(Process::is_of_a_test);
    ours.map(|process| {
        // The group names the instance where the command line does not.
        let command: String = process.command.chars().take(160).collect();
        format!("{} ({}) {command}", process.pid, process.group)
    })
    .collect()
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
