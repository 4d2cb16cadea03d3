//! What takes long and judges no change: measurements, and the suites again and again.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{repo, stages};

/// Prints the store's acknowledged writes a second; `Ok(true)` when the measurement came to its end.
pub fn bench() -> Result<bool> {
    let mut cargo = Command::new(repo::cargo());
    cargo.args(["run", "--quiet", "--release", "--package", "evroc-store", "--example", "acked_writes"]);
    Ok(cargo.current_dir(repo::root()).status()?.success())
}

/// Repeats build, suites and the leftover check; `Ok(true)` when none failed before the time was over.
pub fn soak(time: Duration) -> Result<bool> {
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
