//! Ends and removes the leftovers of a test run that was cut off.
//!
//! A test cleans up after itself, but one that is killed at its stage's budget cannot. What belongs to the run is known by two marks:
//! the run's name in the environment of its processes, and the names `evt-…` of what tests make. Other runs on the same machine use
//! such names too, so a name is left alone as long as a living process mentions it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use evroc_tests::leftovers::processes::{self, Process};
use evroc_tests::leftovers::{Class, Leftover};
use evroc_tests::{PREFIX, process};

use crate::leftovers;

/// How long processes get to end after SIGKILL. Too low leaves their resources; too high only delays the report of one that cannot
/// end.
const END: Duration = Duration::from_secs(10);
/// How long the purge of one instance may take.
const PURGE: Duration = Duration::from_secs(120);

/// Cleans up; `Ok(true)` when nothing of the run is left.
pub fn clean(snapshot: &Path, run: &str) -> Result<bool> {
    end_processes(run);
    for instance in instances(&leftovers::since(snapshot)?) {
        purge(&instance)?;
    }
    let mut left = removable(leftovers::since(snapshot)?);
    // Mounts before their folders, the content of a folder or group before the folder or group.
    left.sort_by_key(|leftover| (rank(leftover.class), std::cmp::Reverse(leftover.item.len())));
    for leftover in &left {
        println!("removing {leftover}");
        remove(leftover);
    }
    let still = removable(leftovers::since(snapshot)?);
    for leftover in &still {
        println!("cannot remove {leftover}");
    }
    Ok(still.is_empty())
}

/// Kills every process that has the run's name in its environment.
fn end_processes(run: &str) {
    process::eventually(END, || {
        let left: Vec<Process> = processes::all().into_iter().filter(|process| process.is_of_run(run)).collect();
        for process in &left {
            println!("ending process {} {}", process.pid, process.command.chars().take(100).collect::<String>());
            // One that has just ended by itself is as good.
            let _ = Command::new("kill").args(["-KILL", &process.pid.to_string()]).stderr(Stdio::null()).status();
        }
        left.is_empty()
    });
}

/// The test instances that are registered and that no living process belongs to.
fn instances(leftovers: &[Leftover]) -> BTreeSet<String> {
    let alive = Alive::look();
    let files = leftovers.iter().filter(|leftover| leftover.class == Class::File);
    let names = files.filter_map(|leftover| {
        let file = Path::new(&leftover.item).strip_prefix(evroc_tests::leftovers::REGISTRY).ok()?;
        Some(file.to_str()?.strip_suffix(".json")?.to_owned())
    });
    names.filter(|name| name.starts_with(PREFIX) && !alive.mentions(name)).collect()
}

fn purge(instance: &str) -> Result<()> {
    println!("purging instance {instance}");
    // Built beside this program.
    let program = std::env::current_exe().context("find this program")?.with_file_name("evrocd");
    let mut command = Command::new(program);
    let output = process::run(command.args(["down", "--purge", "--instance", instance]), PURGE)
        .context("run evrocd down --purge")?;
    if !output.ok() {
        println!("evrocd down --purge --instance {instance}: {}\n{}", output.ending(), output.both);
    }
    Ok(())
}

/// Returns the leftovers that carry the name of something that a test made and that no living process mentions.
fn removable(leftovers: Vec<Leftover>) -> Vec<Leftover> {
    let alive = Alive::look();
    let is_dead = |leftover: &Leftover| test_name(&leftover.item).is_some_and(|name| !alive.mentions(name));
    leftovers.into_iter().filter(|leftover| leftover.class != Class::Process && is_dead(leftover)).collect()
}

/// The living processes of the machine.
struct Alive(Vec<Process>);

impl Alive {
    fn look() -> Alive {
        Alive(processes::all())
    }

    fn mentions(&self, name: &str) -> bool {
        self.0.iter().any(|process| process.mentions(name))
    }
}

/// The first `evt-…` name in a text.
fn test_name(text: &str) -> Option<&str> {
    let from = &text[text.find(PREFIX)?..];
    let end =
        from[PREFIX.len()..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(from.len(), |at| at + PREFIX.len());
    (end > PREFIX.len()).then(|| &from[..end])
}

fn rank(class: Class) -> u8 {
    match class {
        Class::Process => 0,
        Class::Mount => 1,
        Class::NetworkNamespace => 2,
        Class::Link => 3,
        Class::NftTable => 4,
        Class::Cgroup => 5,
        Class::HostsLine => 6,
        Class::File => 7,
    }
}

/// Removes one leftover. What cannot be removed is found by the next look.
fn remove(leftover: &Leftover) {
    let item = leftover.item.as_str();
    match leftover.class {
        Class::Process | Class::HostsLine => {}
        Class::Mount => quietly("umount", &["--lazy", item]),
        Class::NetworkNamespace => quietly("ip", &["netns", "delete", item]),
        Class::Link => quietly("ip", &["link", "delete", item]),
        Class::NftTable => {
            let (family, table) = item.split_once(' ').unwrap_or((item, ""));
            quietly("nft", &["delete", "table", family, table]);
        }
        Class::Cgroup => {
            if let Some(folder) = cgroup_folder(item) {
                // A group goes by rmdir alone, and only when it is empty.
                let _ = fs::remove_dir(folder);
            }
        }
        Class::File => {
            let path = Path::new(item);
            let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
            let _ = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

fn quietly(program: &str, arguments: &[&str]) {
    let _ = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// The folder of `<hierarchy>:<path>`.
fn cgroup_folder(item: &str) -> Option<PathBuf> {
    let (hierarchy, path) = item.split_once(':')?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut roots = mounts.lines().filter_map(|line| {
        let (fields, tail) = line.split_once(" - ")?;
        tail.starts_with("cgroup").then(|| fields.split(' ').nth(4)).flatten()
    });
    let root = roots.find(|root| root.rsplit('/').next() == Some(hierarchy))?;
    Some(Path::new(root).join(path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_tests_resource_is_found_in_it() {
        for (item, name) in [
            ("/run/evt-0a1b2c3d", Some("evt-0a1b2c3d")),
            ("evt-0a1b2c3d-vpc-99", Some("evt-0a1b2c3d")),
            ("memory:/evt-0a1b2c3d/vm-1", Some("evt-0a1b2c3d")),
            ("/var/lib/evroc", None),
            ("/tmp/evt-", None),
        ] {
            assert_eq!(test_name(item), name, "{item}");
        }
    }

    #[test]
    fn a_process_of_the_run_is_ended_and_its_file_removed() {
        let run = evroc_tests::names::random();
        // Not the run's own folder for temporary files: its name belongs to the run that this test is part of.
        let folder = Path::new("/tmp");
        let file = folder.join(&run);
        let snapshot = std::env::temp_dir().join(format!("xtask-clean-{run}.json"));
        leftovers::save(&snapshot).expect("save");
        fs::write(&file, "").expect("write");
        let mut child = Command::new("sleep").arg("600").env("EVROC_TEST_RUN", &run).spawn().expect("spawn");
        // Another run's process that mentions its own name.
        let other = evroc_tests::names::random();
        let kept = folder.join(&other);
        fs::write(&kept, "").expect("write");
        let mut alive = Command::new("sleep").arg("600").env("EVROC_TEST_RUN", &other).spawn().expect("spawn");
        // The kernel shows a new process's environment a moment after its start.
        for (child, name) in [(&child, &run), (&alive, &other)] {
            let is_shown = || Process::read(child.id()).is_some_and(|process| process.is_of_run(name));
            assert!(process::eventually(END, is_shown));
        }
        end_processes(&run);
        let ended = process::eventually(END, || matches!(child.try_wait(), Ok(Some(_))));
        // Only this test's own files: a whole clean would judge the machine, which other tests are using.
        let new = [&file, &kept].map(|path| Leftover { class: Class::File, item: path.display().to_string() });
        let dead = removable(new.to_vec());
        dead.iter().for_each(remove);
        let outcome = (ended, matches!(alive.try_wait(), Ok(None)), file.exists(), kept.exists());
        for child in [&mut child, &mut alive] {
            // One that has ended already cannot be killed.
            let _ = child.kill();
            child.wait().expect("wait");
        }
        // The first is absent when all is well.
        let _ = fs::remove_file(&file);
        fs::remove_file(&kept).expect("remove");
        fs::remove_file(&snapshot).expect("remove");
        assert_eq!(outcome, (true, true, false, true), "ended, other alive, file, other's file");
    }
}
