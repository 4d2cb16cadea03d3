//! The virtual machine of the tour, as the user sees it and as it really runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use evroc_tests::leftovers::processes::{Process, all};
use evroc_tests::leftovers::{Class, Snapshot};
use evroc_tests::process::Output;

use super::inputs;
use super::processes::{self, alive, kill, pids, status_field};
use crate::tour::step::Tour;

/// Ctrl-].
const LEAVE: u8 = 0x1d;

/// The QEMU processes of this instance.
pub fn qemus(tour: &Tour) -> Vec<Process> {
    let mark = format!("/{}/", tour.cloud.instance());
    let ours = |process: &Process| {
        process.command.contains("qemu-system") && (process.command.contains(&mark) || process.group.contains(&mark))
    };
    // The parent of a guest has QEMU's arguments in its own at most in part: compare the program.
    let is_qemu =
        |process: &Process| process.command.split(' ').next().is_some_and(|program| program.contains("qemu-system"));
    all().into_iter().filter(ours).filter(is_qemu).collect()
}

fn qemu(tour: &Tour) -> Result<Process> {
    let mut found = qemus(tour);
    ensure!(found.len() == 1, "expected one QEMU of this cloud, found {}", found.len());
    Ok(found.remove(0))
}

/// Notes what belongs to the instance now, to be compared with at the end.
pub fn note_existing(tour: &mut Tour) -> Result<()> {
    // Without a cloud there is nothing that could come back to this.
    pids(tour)?;
    tour.notes.insert("before", inventory(tour)?.into_iter().collect::<Vec<_>>().join("\n"));
    Ok(())
}

/// The columns that the definition names.
pub fn shows_the_machine(_: &mut Tour, output: &Output) -> Result<()> {
    for word in ["NAME", "READY", "REASON", "VIRTUALMACHINESTATUS", "IP", "PUBLIC IP", "Running", "10.0.0."] {
        ensure!(output.stdout.contains(word), "expected `{word}` in the table");
    }
    Ok(())
}

/// A login prompt within the deadline; Ctrl-] leaves.
pub fn console_has_a_prompt(tour: &mut Tour, line: &str) -> Result<String> {
    let mut console = tour.cloud.terminal.converse(line)?;
    let deadline = tour.left().saturating_sub(Duration::from_secs(5));
    console.send(b"\r")?;
    console.wait_for("login:", deadline)?;
    console.send(&[LEAVE])?;
    let output = console.finish(Duration::from_secs(5))?;
    ensure!(!output.timed_out, "Ctrl-] did not leave the console");
    ensure!(output.ok(), "{}; it printed:\n{}", output.ending(), output.both);
    Ok(output.both)
}

/// `uname` answers from the guest, not from here.
pub fn is_the_guests_kernel(_: &mut Tour, output: &Output) -> Result<()> {
    let answer = output.stdout.lines().last().unwrap_or_default();
    ensure!(answer.starts_with("Linux hello "), "expected the host name `hello`, found `{answer}`");
    Ok(())
}

/// The second condition describes the guest.
pub fn guest_is_ready(tour: &mut Tour) -> Result<()> {
    tour.eventually(|tour| {
        let status = tour.value("vm/hello", ".status.conditions[?(@.type==\"GuestReady\")].status")?;
        ensure!(status == "True", "expected GuestReady=True, found `{status}`");
        Ok(())
    })
}

/// The live arguments and descriptors: firmware and the Disk's own bytes, a tap and no user network.
pub fn qemu_is_what_it_should_be(tour: &mut Tour) -> Result<()> {
    let qemu = qemu(tour)?;
    let arguments = fs::read(format!("/proc/{}/cmdline", qemu.pid))?;
    let arguments: Vec<String> =
        arguments.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
    for forbidden in ["-kernel", "-initrd", "-append", "-snapshot", "-virtfs", "-fsdev"] {
        ensure!(!arguments.iter().any(|argument| argument == forbidden), "QEMU runs with {forbidden}");
    }
    ensure!(
        !arguments.iter().any(|argument| argument.starts_with("user,") || argument.contains("\"user\"")),
        "QEMU has a user network"
    );
    ensure!(arguments.iter().any(|argument| argument.contains("tap")), "QEMU has no tap: {}", arguments.join(" "));
    ensure!(arguments.iter().any(|argument| argument == "-nodefaults"), "QEMU runs with its default devices");

    let namespace = tour.value("vm/hello", ".metadata.namespace")?;
    let volume = tour.shell(&format!(
        "kubectl get volumes.infra.evroclabs.net hello -n {namespace} -o jsonpath='{{.metadata.uid}}'"
    ))?;
    let node = format!("/var/lib/{}/node", tour.cloud.instance());
    let own = format!("{node}/volumes/{volume}/");
    let mut writes_own = false;
    for (path, writable) in open_files(qemu.pid)? {
        let name = path.to_string_lossy();
        if !name.ends_with(".qcow2") && !name.ends_with(".raw") && !name.ends_with(".img") {
            continue;
        }
        if name.starts_with(&own) {
            writes_own |= writable;
        } else if name.starts_with(&format!("{node}/images/")) {
            ensure!(!writable, "QEMU may write to the image {name}");
        } else {
            ensure!(
                name.starts_with(&format!("{node}/machines/")),
                "QEMU has a disk that is not the Disk's own: {name}"
            );
        }
    }
    ensure!(writes_own, "QEMU has not opened {own} for writing");

    let links = fs::read_to_string(format!("/proc/{}/net/dev", pids(tour)?["node"]))?;
    let tap = evroc_link_prefix(tour);
    ensure!(!links.contains(&format!("{tap}t")), "a guest's tap is in the host's own network");
    Ok(())
}

fn evroc_link_prefix(tour: &Tour) -> String {
    evroc_tests::leftovers::link_prefix(tour.cloud.instance())
}

/// Lists the open files of a process, and whether it may write to them.
fn open_files(pid: u32) -> Result<Vec<(PathBuf, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("process {pid} has ended"))?.flatten()
    {
        let Ok(path) = fs::read_link(entry.path()) else { continue };
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy()))
            .unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim).unwrap_or("0");
        // The two lowest bits are the mode of access; 0 is reading only.
        found.push((path, u32::from_str_radix(flags, 8).unwrap_or(0) & 3 != 0));
    }
    Ok(found)
}

/// The guest's process is its own user's, without a capability, with a system-call filter.
pub fn qemu_has_no_privileges(tour: &mut Tour) -> Result<()> {
    let qemu = qemu(tour)?;
    ensure!(qemu.uid >= 1_900_000_000, "QEMU runs as uid {}, expected one of the instance's", qemu.uid);
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        let found = status_field(qemu.pid, set)?;
        ensure!(found.chars().all(|digit| digit == '0'), "QEMU: expected no capabilities in {set}, found {found}");
    }
    ensure!(status_field(qemu.pid, "Seccomp")? == "2", "QEMU runs without a system-call filter");
    Ok(())
}

/// QEMU goes on, the same process, while agent and supervisor are killed and come back.
pub fn outlives_the_agent(tour: &mut Tour) -> Result<()> {
    let before = qemu(tour)?.pid;
    for role in ["node", "control"] {
        let pid = pids(tour)?[role];
        kill(tour, pid)?;
        tour.eventually(|tour| {
            let now = pids(tour)?[role];
            ensure!(now != pid && alive(now), "{role} is not back");
            Ok(())
        })?;
    }
    processes::supervisor_is_taken_over(tour)?;
    tour.eventually(|tour| {
        let status = tour.value("vm/hello", ".status.conditions[?(@.type==\"Ready\")].status")?;
        ensure!(status == "True", "expected Ready=True after the restarts, found `{status}`");
        Ok(())
    })?;
    ensure!(qemu(tour)?.pid == before, "the guest was restarted");
    tour.shell("evroc compute vm ssh hello -- true").map(drop)
}

/// A file written in one VM is read in another one that boots from the same disk.
pub fn marker_survives(tour: &mut Tour) -> Result<()> {
    let marker = format!("marker-{}", tour.cloud.instance());
    tour.shell(&format!("evroc compute vm ssh hello -- 'echo {marker} > marker && sync'"))?;
    let key = tour.value("vm/hello", ".spec.osSettings.ssh.authorizedKeys[0].value")?;
    tour.shell("kubectl delete vm/hello --timeout=60s")?;
    let heir = inputs::vm("heir", "test.xs", "hello")
        + &format!("\n  osSettings: {{ssh: {{authorizedKeys: [{{value: \"{key}\"}}]}}}}");
    tour.shell(&format!("kubectl apply -f - <<'END'\n{heir}\nEND"))?;
    let found = tour.shell("evroc compute vm ssh heir -- cat marker").map(|text| text.trim().to_owned());
    tour.shell("kubectl delete vm/heir --timeout=60s")?;
    tour.shell("kubectl apply -f examples/vm.yaml && kubectl wait vm/hello --for=condition=Ready --timeout=1m")?;
    ensure!(found? == marker, "the disk's content is not what the first VM wrote");
    Ok(())
}

/// After the delete the instance holds what it held before.
pub fn everything_is_back(tour: &mut Tour) -> Result<()> {
    let before: BTreeSet<String> =
        tour.notes.get("before").context("nothing was noted before")?.lines().map(str::to_owned).collect();
    tour.eventually(|tour| {
        let now = inventory(tour)?;
        let new: Vec<&String> = now.difference(&before).collect();
        ensure!(new.is_empty(), "still there: {new:?}");
        Ok(())
    })
}

/// Starts the VM of the example again, for the stop that follows.
pub fn run_one_more(tour: &mut Tour) -> Result<()> {
    tour.shell("kubectl apply -f examples/vm.yaml && kubectl wait vm/hello --for=condition=Ready --timeout=80s")
        .map(drop)
}

/// Lists the resources of the instance, without those that change at every restart of a role. Network namespaces of resource groups
/// stay.
fn inventory(tour: &Tour) -> Result<BTreeSet<String>> {
    let instance = tour.cloud.instance();
    let of_instance = Snapshot::take().of_instance(instance);
    let per_group = format!("/run/{instance}/vpc-netns/");
    let mut found: BTreeSet<String> = of_instance
        .iter()
        .filter(|item| item.class != Class::Process && !item.item.contains(&per_group))
        .map(ToString::to_string)
        .collect();
    for process in all().into_iter().filter(|process| process.group.contains(&format!("/{instance}/"))) {
        let program = process.command.split(' ').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        // Roles and supervisor are the cloud's; guests, containers and their parents are workloads.
        if program != "evrocd" || process.command.contains(" shim ") {
            found.insert(format!("workload {program} in {}", process.group));
        }
    }
    for folder in ["volumes", "machines", "containers", "shims"] {
        let path = Path::new("/var/lib").join(instance).join("node").join(folder);
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            found.insert(format!("file {}", entry.path().display()));
        }
    }
    Ok(found)
}
