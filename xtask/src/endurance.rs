//! Long runs that are not part of judging a change: measurements, the comparison with the original, crashes of the store, fuzzing, and the
//! suites again and again.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::results::Table;
use crate::{fuzzing, reference, repo, stages};

/// Sequences of the comparison.
const SEQUENCES: u64 = 20_000;
/// The seed of the first sequence: the same every time, so that a difference can be reproduced.
const FIRST_SEED: u64 = 1;

/// Prints the store's acknowledged writes a second; `Ok(true)` when the measurement came to its end.
pub fn bench() -> Result<bool> {
    let mut cargo = Command::new(repo::cargo());
    cargo.args(["run", "--quiet", "--release", "--package", "evroc-store", "--example", "acked_writes"]);
    Ok(cargo.current_dir(repo::root()).status()?.success())
}

/// Prints the cost of a cloud of simulated hosts at rest; `Ok(true)` when the measurement came to its end.
pub fn bench_hosts(hosts: usize, machines: usize) -> Result<bool> {
    let mut cargo = Command::new(repo::cargo());
    // A release build takes many times as long, and the bar leaves room for the difference.
    cargo.args(["run", "--quiet", "--profile", "quick", "--package", "evroc-bench", "--bin", "bench-hosts", "--"]);
    cargo.args(["--hosts", &hosts.to_string(), "--machines", &machines.to_string()]);
    Ok(cargo.current_dir(repo::root()).status()?.success())
}

/// Rounds of the store's crashes: all moments of a record with each fixed kind of crash, the rest at random.
const CRASHES: u64 = 10_000;
/// Their outcome when all is well.
const NOTHING_LOST: &str = "nothing lost";

/// Crashes the store at every write and sync of a recorded workload; `Ok(true)` when nothing acknowledged was lost.
fn store_crashes() -> Result<bool> {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let folder = repo::root().join("target/soak");
    std::fs::create_dir_all(&folder)?;
    let record = folder.join(format!("store-{seed}.record"));
    let settings = [
        ("EVROC_STORE_CRASH_ROUNDS", CRASHES.to_string()),
        ("EVROC_STORE_CRASH_SEED", seed.to_string()),
        ("EVROC_STORE_CRASH_RECORD", record.display().to_string()),
    ];
    let arguments = ["test", "--package", "evroc-store", "--test", "store", "--", "power::", "--nocapture"];
    println!("== {CRASHES} crashes of the store, seed {seed}");
    let mut cargo = Command::new(repo::cargo());
    let passed = cargo.args(arguments).envs(settings.clone()).current_dir(repo::root()).status()?.success();
    if passed {
        std::fs::remove_file(&record)?;
    } else {
        let text: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        println!("soak: to go on or to repeat a round, with the same record and seed:");
        println!("  {} EVROC_STORE_CRASH_FROM=<round> cargo {}", text.join(" "), arguments.join(" "));
    }
    let outcome = if passed { NOTHING_LOST } else { "**failed**" };
    Table::Crashes.note(&[CRASHES.to_string(), seed.to_string(), outcome.to_owned()])?;
    Ok(passed)
}

/// Minutes in which groups, machines, disks and services come and go.
const CHURN_MINUTES: u64 = 60;

/// Has everything come and go on simulated hosts, and compares what there is with what there was; `Ok(true)` when nothing has grown.
pub fn churn(minutes: u64) -> Result<bool> {
    println!("== {minutes} minutes in which everything comes and goes");
    let mut cargo = Command::new(repo::cargo());
    cargo.args(["test", "--package", "evroc-tests", "--test", "suites", "--", "sim::churn::", "--nocapture"]);
    cargo.env("EVROC_CHURN_MINUTES", minutes.to_string());
    Ok(cargo.current_dir(repo::root()).status()?.success())
}

/// Compares with the original, crashes the store, fuzzes the API, has everything come and go for an hour, then repeats build, suites and the leftover check; `Ok(true)` when
/// none failed before the time was over. What has a good row of this commit in docs/soak.md is not done again.
pub fn soak(time: Duration) -> Result<bool> {
    let (sequences, seed) = (SEQUENCES, FIRST_SEED);
    let compared = [seed.to_string(), sequences.to_string()];
    if !Table::Differential.has(&compared.each_ref().map(String::as_str), "0")?
        && !reference::differential(sequences, seed)?
    {
        println!("soak: the API differs from Kubernetes' own; docs/soak.md has the counts");
        return Ok(false);
    }
    if !Table::Crashes.has(&[&CRASHES.to_string()], NOTHING_LOST)? && !store_crashes()? {
        println!("soak: the store has lost or damaged something in a crash");
        return Ok(false);
    }
    if !fuzzing::run_rest()? {
        println!("soak: fuzzing has found something; its inputs are in fuzz/corpus");
        return Ok(false);
    }
    if !churn(CHURN_MINUTES)? {
        println!("soak: something grows that should not");
        return Ok(false);
    }
    let deadline = Instant::now() + time;
    let stages: Vec<String> = ["build", "suites", "leftovers"].map(str::to_owned).to_vec();
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < deadline {
        rounds += 1;
        println!("== round {rounds}");
        if !stages::run(&stages, None, false)? {
            println!("soak: failed in round {rounds}");
            return Ok(false);
        }
    }
    println!("soak: {rounds} rounds passed");
    Ok(true)
}
