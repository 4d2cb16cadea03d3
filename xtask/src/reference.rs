//! Commands that use Kubernetes' own server for custom resources: the suite against it, and the comparison with ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::results::{Table, commit};
use crate::{repo, stages};

/// Builds the original where it is not in the cache; its folder.
pub fn build() -> Result<PathBuf> {
    let output = Command::new(repo::root().join("tests/reference/build"))
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("run tests/reference/build")?;
    ensure!(output.status.success(), "tests/reference/build failed; its output is above");
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Runs the suite against the original.
pub fn test(filter: Option<&str>) -> Result<bool> {
    let folder = build()?;
    let kinds = repo::root().join("target/crds");
    if !crds(&kinds)? {
        return Ok(false);
    }
    let mut cargo = Command::new(repo::cargo());
    cargo.env("EVROC_API_CRDS", &kinds);
    cargo.args(["test", "--package", "evroc-api-suite", "--test", "api"]).args(filter);
    Ok(cargo.env("EVROC_API_ORIGINAL", folder).current_dir(repo::root()).status()?.success())
}

/// Measures what the worst request for each decoder costs; `Ok(true)` when none costs more than in proportion to its size.
pub fn bench_bodies() -> Result<bool> {
    let mut cargo = Command::new(repo::cargo());
    cargo.args("build --profile quick --locked --package evrocd --package evroc-bench --bins".split(' '));
    ensure!(cargo.current_dir(repo::root()).status()?.success(), "the measurements cannot be built; see above");
    let programs = repo::root().join("target/quick");
    let mut command = on_second_core();
    command.arg(programs.join("bench-api")).arg("--evrocd").arg(programs.join("evrocd")).arg("--bodies");
    Ok(command.current_dir(repo::root()).status()?.success())
}

/// A command as root on the core that the servers do not have.
fn on_second_core() -> Command {
    let mut command = if stages::is_root() { Command::new("taskset") } else { Command::new("sudo") };
    if !stages::is_root() {
        command.arg("taskset");
    }
    command.args(["-c", "1"]);
    command
}

/// Measures ours beside the original: as root, because the product is started; the load on one core, the servers on the other.
pub fn bench(objects: usize, write: bool) -> Result<bool> {
    let folder = build()?;
    let mut cargo = Command::new(repo::cargo());
    cargo.args("build --release --locked --package evrocd --package evroc-bench --bins".split(' '));
    ensure!(cargo.current_dir(repo::root()).status()?.success(), "the measurements cannot be built; see above");
    let programs = repo::root().join("target/release");
    let mut command = on_second_core();
    command.arg(programs.join("bench-api")).arg("--original").arg(folder);
    command.arg("--evrocd").arg(programs.join("evrocd")).args(["--objects", &objects.to_string()]);
    if write {
        command.arg("--write").arg(repo::root().join("docs/performance.md"));
    }
    Ok(command.current_dir(repo::root()).status()?.success())
}

/// Writes our kinds as CustomResourceDefinitions.
pub fn crds(dir: &Path) -> Result<bool> {
    let mut cargo = Command::new(repo::cargo());
    cargo.args(["run", "--quiet", "--package", "evroc-api", "--example", "crds"]).current_dir(repo::root());
    let output = cargo.stderr(std::process::Stdio::inherit()).output().context("run the example crds")?;
    ensure!(output.status.success(), "the kinds cannot be built; see above");
    let definitions: Vec<Value> = serde_json::from_slice(&output.stdout).context("read the kinds")?;
    std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    for definition in &definitions {
        let name = definition["metadata"]["name"].as_str().context("a definition has no name")?;
        // JSON is YAML, and needs no writer of its own.
        let file = dir.join(format!("{name}.yaml"));
        let text = serde_json::to_string_pretty(definition)? + "\n";
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    println!("{} definitions in {}", definitions.len(), dir.display());
    Ok(true)
}

/// Compares random sequences on both servers and notes the outcome; `Ok(true)` when nothing differs. One that was ended goes on at
/// the same commit.
pub fn differential(sequences: u64, seed: u64) -> Result<bool> {
    let folder = build()?;
    let mut cargo = Command::new(repo::cargo());
    cargo.args("build --release --package evroc-api-suite --package evroc-apiserver --bins --examples".split(' '));
    ensure!(cargo.current_dir(repo::root()).status()?.success(), "the comparison cannot be built; see above");
    let dir = repo::root().join("target/differential").join(commit()?);
    let mut run = Command::new(repo::root().join("target/release/differential"));
    run.arg("--original").arg(folder).arg("run").args(["--sequences", &sequences.to_string()]);
    run.args(["--seed", &seed.to_string()]).arg("--dir").arg(&dir);
    let is_equal = run.current_dir(repo::root()).status()?.success();
    let text = std::fs::read_to_string(dir.join("state.json")).context("read what the comparison found")?;
    note(&serde_json::from_str(&text)?)?;
    Ok(is_equal)
}

/// Adds a row to the table of results.
fn note(state: &Value) -> Result<()> {
    let ways = state["differences"].as_object();
    let differing: usize = ways.into_iter().flatten().map(|it| it.1.as_array().map_or(0, Vec::len)).sum();
    let (seed, next, requests) = (&state["seed"], &state["next"], &state["requests"]);
    let ways = ways.map_or(0, serde_json::Map::len);
    Table::Differential.note(&[seed, next, requests, &differing.into(), &ways.into()].map(Value::to_string))
}
