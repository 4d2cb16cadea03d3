//! Each process of the cloud is killed at every line of the tour, and the tour holds.
//!
//! A line may fail when the process that answers it is killed under it: a user types it again. What must not happen: that it goes on
//! failing, that a workload dies with an agent, that ports or addresses change, or that anything is left at the end.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::leftovers::processes::all;
use evroc_tests::process::{Output, eventually};

use super::processes::{alive, kill, pids, record};
use super::{guests, stop};
use crate::tour::step::Tour;

/// The processes to kill.
const VICTIMS: &[&str] = &["supervisor", "control", "edge", "node", "the guest's shim", "the container's shim"];

/// The lines of the tour that can be typed twice, with a word that their output must contain.
const LINES: &[(&str, &str)] = &[
    ("kubectl apply -f examples/vm.yaml", "virtualmachine"),
    ("kubectl wait vm/hello --for=condition=Ready --timeout=60s", "condition met"),
    ("kubectl get vm,disk -o wide", "Running"),
    ("evroc compute vm ssh hello -- uname -a", "Linux hello"),
    ("evroc registry login", "registry"),
    ("skopeo copy oci:$EVROC_HELLO_IMAGE:latest docker://$EVROC_REGISTRY/demo/hello:v1", ""),
    ("kubectl apply -f examples/service.yaml", "service"),
    ("kubectl wait service/hello --for=condition=Ready --timeout=60s", "condition met"),
    (
        "curl -sSf -m 30 --cacert $EVROC_CA $(kubectl get service hello -o jsonpath={.status.url})/",
        "Hello from evroc Run",
    ),
    ("evroc run logs hello", "on port 8080"),
    ("evrocd status", "node"),
];

/// How long a line may take in all, retyped as often as needed: it includes a guest that boots again.
const PATIENCE: Duration = Duration::from_secs(75);

/// How often each has to be found and killed, so that the test cannot pass without killing any.
const LEAST_KILLS: usize = 2;

/// Starts the cloud again and does what the module's header describes.
pub fn every_process_at_every_line(tour: &mut Tour) -> Result<()> {
    let clone = tour.cloud.terminal.clone.display().to_string();
    let make_run = format!("make -C {clone} run");
    begin_killing_the_start(tour, &make_run)?;
    tour.shell("eval \"$(scripts/env)\"")?;
    let ports = record(tour)?["ports"].clone();
    let mut kills = vec![0; VICTIMS.len()];
    for (number, (line, expected)) in LINES.iter().enumerate() {
        for (turn, victim) in VICTIMS.iter().enumerate() {
            // Moments spread over the first half second, other ones for each pair, the same with every run.
            let moment = Duration::from_millis(((number * 7 + turn * 3) % 11) as u64 * 50);
            let killed = with_a_kill(tour, line, expected, victim, moment)
                .with_context(|| format!("`{line}` while {victim} is killed"))?;
            kills[turn] += usize::from(killed);
        }
    }
    for (victim, kills) in VICTIMS.iter().zip(kills) {
        ensure!(kills >= LEAST_KILLS, "{victim} was there to be killed {kills} times, expected {LEAST_KILLS} at least");
    }
    ensure!(record(tour)?["ports"] == ports, "the ports have changed");
    tour.shell("kubectl delete -f examples/ --timeout=90s")?;
    tour.shell(&format!("make -C {clone} stop"))?;
    stop::nothing_runs(tour)?;
    tour.shell(&make_run)?;
    tour.notes.insert("killed", String::new());
    Ok(())
}

/// The purge after all the kills.
pub fn purge_leaves_nothing(tour: &mut Tour) -> Result<()> {
    ensure!(tour.notes.contains_key("killed"), "the tour with the kills did not come to its end");
    stop::purge_leaves_nothing(tour)
}

/// The first start is interrupted as soon as it has made something; the next one finishes it.
fn begin_killing_the_start(tour: &Tour, make_run: &str) -> Result<()> {
    let mut start = tour.cloud.terminal.begin_line(make_run)?;
    let begun = eventually(tour.left().min(Duration::from_secs(90)), || {
        record(tour).is_ok_and(|record| record["supervisor"]["pid"].is_u64()) || start.ended()
    });
    ensure!(begun, "`make run` made no record of the instance: {}", start.so_far());
    if let Some(supervisor) = record(tour)?["supervisor"]["pid"].as_u64() {
        tour.shell(&format!("kill -9 {supervisor}"))?;
    }
    start.finish(tour.left().min(Duration::from_secs(90)))?;
    tour.shell(make_run).context("the start after an interrupted one").map(drop)
}

/// Types the line and kills the victim under it; false when there is no such process now.
fn with_a_kill(tour: &Tour, line: &str, expected: &str, victim: &str, moment: Duration) -> Result<bool> {
    // An absent shim (the service sleeps, the VM does not exist yet) cannot be killed.
    let Some(pid) = pid_of(tour, victim)? else { return Ok(false) };
    let mut running = tour.cloud.terminal.begin_line(line)?;
    eventually(moment, || running.ended());
    kill(tour, pid)?;
    let mut output = running.finish(tour.left().min(PATIENCE))?;
    if victim == "supervisor" {
        tour.shell("evrocd up --detach")?;
    }
    let good = |output: &Output| output.ok() && output.both.contains(expected);
    let deadline = std::time::Instant::now() + PATIENCE.min(tour.left());
    while !good(&output) {
        if std::time::Instant::now() > deadline {
            bail!("retyped until the deadline: {}; it printed:\n{}", output.ending(), output.both.trim());
        }
        output = tour.cloud.terminal.type_line(line, PATIENCE.min(tour.left()))?;
    }
    tour.eventually(|tour| {
        for (role, pid) in pids(tour)? {
            ensure!(alive(pid), "{role} is not back");
        }
        Ok(())
    })?;
    Ok(true)
}

fn pid_of(tour: &Tour, victim: &str) -> Result<Option<u32>> {
    if let Some(pid) = pids(tour)?.get(victim) {
        return Ok(Some(*pid));
    }
    let guest = guests::qemus(tour).first().and_then(|qemu| parent_of(qemu.pid));
    if victim == "the guest's shim" {
        return Ok(guest);
    }
    let mark = format!("/{}/", tour.cloud.instance());
    let shims =
        all().into_iter().filter(|process| process.command.contains(" shim ") && process.command.contains(&mark));
    Ok(shims.map(|shim| shim.pid).find(|pid| Some(*pid) != guest))
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}
