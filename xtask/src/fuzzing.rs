//! Fuzzing of what clients send (`fuzz/`, properties in `crates/apiserver/src/fuzzing`).
//!
//! The inputs that reach something new are kept in `target/fuzz/corpus`, so that a run goes on where the last one ended. What breaks a
//! property goes into `fuzz/corpus`, where the tests of the API server replay it from then on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};

use crate::repo;
use crate::results::Table;

/// Minutes for each target in `make soak`.
pub const MINUTES: u64 = 10;

/// The outcome of a target that broke nothing.
const NOTHING: &str = "nothing found";

/// cargo-fuzz builds for the target by name, also where it is the host's.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// An input that takes longer is a find: clients must not be able to hold a processor. The longest that is allowed is a rule's two
/// seconds, on a busy host.
const SECONDS_PER_INPUT: u32 = 20;
/// An input that needs more memory is a find.
const MEGABYTES: u32 = 2048;
/// Longer inputs find nothing that shorter ones do not, and more slowly.
const BYTES_PER_INPUT: u32 = 4096;

/// Runs the targets whose name contains `only`, each that long and as many at once as there are processors; `Ok(true)` when nothing
/// was found.
pub fn run(only: Option<&str>, minutes: u64) -> Result<bool> {
    all(targets(only)?, minutes)
}

/// Runs the targets that have no row of this commit yet, each [`MINUTES`]; `Ok(true)` when nothing was found.
pub fn run_rest() -> Result<bool> {
    let mut rest = Vec::new();
    for target in targets(None)? {
        if !Table::Fuzzing.has(&[&target, &MINUTES.to_string()], NOTHING)? {
            rest.push(target);
        }
    }
    all(rest, MINUTES)
}

fn all(targets: Vec<String>, minutes: u64) -> Result<bool> {
    if targets.is_empty() {
        return Ok(true);
    }
    let programs = build()?;
    let queue = Mutex::new(targets.into_iter());
    let broken = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let Some(target) = locked(&queue).next() else { return Ok(()) };
            println!("== {target}, {minutes} minutes");
            let (executions, found) = fuzz(&programs.join(&target), &target, minutes)?;
            let outcome = match found.as_slice() {
                [] => NOTHING.to_owned(),
                found => format!("**found {}**", found.join(", ")),
            };
            println!("{target}: {executions} executions, {outcome}");
            // The lock is also that of the table.
            let mut broken = locked(&broken);
            Table::Fuzzing.note(&[target.clone(), minutes.to_string(), executions.to_string(), outcome])?;
            if !found.is_empty() {
                broken.push(target);
            }
        }
    };
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a worker panicked; see above"))))
    })?;
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !broken.is_empty() {
        println!("fuzz: {} broke; `cargo test fuzzing` in evroc-apiserver or evroc-node repeats it", broken.join(", "));
    }
    Ok(broken.is_empty())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folders of the kept corpus.
fn targets(only: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(kept("")).context("read fuzz/corpus")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let all = names.join(", ");
    names.retain(|it| only.is_none_or(|only| it.contains(only)));
    ensure!(!names.is_empty(), "--only {:?}: expected a part of one of {all}", only.unwrap_or_default());
    Ok(names)
}

fn kept(target: &str) -> PathBuf {
    repo::root().join("fuzz/corpus").join(target)
}

/// Builds all targets; where they are.
fn build() -> Result<PathBuf> {
    let folder = repo::root().join("target/fuzz");
    let tools = folder.join("tools");
    if !tools.join("bin/cargo-fuzz").exists() {
        println!("fuzz: installing cargo-fuzz into {}", tools.display());
        let mut install = Command::new(repo::cargo());
        install.args(["install", "--quiet", "--locked", "cargo-fuzz", "--root"]).arg(&tools);
        ensure!(install.status()?.success(), "cargo-fuzz cannot be installed; see above");
    }
    // The fuzzed code uses the product's own versions of all dependencies; cargo adds what only the targets need.
    let lock = repo::root().join("Cargo.lock");
    std::fs::copy(&lock, repo::root().join("fuzz/Cargo.lock")).with_context(|| format!("copy {}", lock.display()))?;
    let mut build = Command::new(tools.join("bin/cargo-fuzz"));
    // Nothing here is unsafe, so no sanitizer; the coverage needs an option that only nightly compilers enable by themselves.
    build.args(["fuzz", "build", "--sanitizer", "none", "--target", TRIPLE, "--target-dir"]).arg(&folder);
    build.env("RUSTC_BOOTSTRAP", "1").current_dir(repo::root());
    ensure!(build.status().context("run cargo-fuzz")?.success(), "the fuzz targets cannot be built; see above");
    Ok(folder.join(TRIPLE).join("release"))
}

/// Runs a target: how often it ran, and the names of the inputs that broke it.
fn fuzz(program: &Path, target: &str, minutes: u64) -> Result<(u64, Vec<String>)> {
    let corpus = repo::root().join("target/fuzz/corpus").join(target);
    std::fs::create_dir_all(&corpus).with_context(|| format!("make {}", corpus.display()))?;
    let log = repo::root().join("target/fuzz").join(format!("{target}.log"));
    let before = names(&kept(target))?;
    let output = std::fs::File::create(&log).with_context(|| format!("write {}", log.display()))?;
    let mut command = Command::new(program);
    command.arg(&corpus).arg(kept(target));
    command.arg(format!("-max_total_time={}", minutes * 60)).arg("-print_final_stats=1");
    command.arg(format!("-timeout={SECONDS_PER_INPUT}")).arg(format!("-report_slow_units={SECONDS_PER_INPUT}"));
    command.arg(format!("-rss_limit_mb={MEGABYTES}")).arg(format!("-max_len={BYTES_PER_INPUT}"));
    command.arg(format!("-artifact_prefix={}/found-", kept(target).display()));
    let status = command.stdout(Stdio::null()).stderr(output).status().with_context(|| format!("run {target}"))?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let mut found: Vec<String> = names(&kept(target))?.into_iter().filter(|it| !before.contains(it)).collect();
    if !status.success() && found.is_empty() {
        // One that is kept already.
        found.push(format!("an input that is known, or none at all: see {}", log.display()));
    }
    Ok((executions(&text), found))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// `stat::number_of_executed_units: 123` at the end, or `#123` at the beginning of the last line that reports progress.
fn executions(log: &str) -> u64 {
    let number = |text: &str| text.trim().split([' ', '\t']).next().and_then(|it| it.parse().ok());
    let last = |prefix: &str| log.lines().filter_map(|line| line.strip_prefix(prefix)).filter_map(number).next_back();
    last("stat::number_of_executed_units:").or_else(|| last("#")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_log() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 1\n#512\tNEW    cov: 2\nDone\nstat::number_of_executed_units: 777\n";
        assert_eq!(executions(log), 777);
        assert_eq!(executions("#2\tINITED cov: 1\n#512\tNEW    cov: 2\npanicked"), 512);
        assert_eq!(executions("nothing"), 0);
    }

    #[test]
    fn targets_are_the_folders_of_the_corpus() {
        let all = targets(None).unwrap();
        assert!(all.contains(&"json_patch".to_owned()) && all.is_sorted());
        assert_eq!(targets(Some("json")).unwrap(), ["json_patch"]);
        assert!(targets(Some("nothing")).unwrap_err().to_string().contains("json_patch"));
    }
}
