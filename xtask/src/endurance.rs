//! What takes long and judges no change: measurements, the comparison with the original, and the suites again and again.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{reference, repo, stages};

/// Sequences of the comparison, and the first one's seed: the same every time, so that what is found can be found again.
const SEQUENCES: (u64, u64) = (20_000, 1);

/// Prints the store's acknowledged writes a second; `Ok(true)` when the measurement came to its end.
pub fn bench() -> Result<bool> {
    let mut cargo = Command::new(repo::cargo());
    cargo.args(["run", "--quiet", "--release", "--package", "evroc-store", "--example", "acked_writes"]);
    Ok(cargo.current_dir(repo::root()).status()?.success())
}

/// Compares with the original, then repeats build, suites and the leftover check; `Ok(true)` when none failed before the time was over.
pub fn soak(time: Duration) -> Result<bool> {
    if !reference::differential(SEQUENCES.0, SEQUENCES.1)? {
        println!("soak: the API differs from Kubernetes' own; docs/soak.md has the counts");
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
