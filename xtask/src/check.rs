//! The checks that a change must pass: format, clippy, tidy, and cargo-deny where it is installed.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{repo, tidy};

/// One named command of the check.
pub struct Step {
    /// How it is called in reports.
    pub name: &'static str,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// The commands of the check; `tidy` is not among them because it is this program.
pub fn steps() -> Vec<Step> {
    let step = |name, arguments: &str| {
        let command = std::iter::once(repo::cargo()).chain(arguments.split(' ').map(str::to_owned)).collect();
        Step { name, command }
    };
    let mut steps = vec![
        step("fmt", "fmt --all --check"),
        step("clippy", "clippy --quiet --workspace --all-targets --locked --keep-going -- -D warnings"),
    ];
    if has_cargo_deny() {
        steps.push(step("deny", "deny --all-features check --hide-inclusion-graph"));
    }
    steps
}

/// Whether cargo-deny is installed. It takes minutes to build, so it is not installed on the way; licences and advisories then stay unchecked.
pub fn has_cargo_deny() -> bool {
    let output = Command::new(repo::cargo()).args(["deny", "--version"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Keeps today's published API as that of the last release.
pub fn release_openapi() -> Result<bool> {
    let mut cargo = Command::new(repo::cargo());
    cargo.args(["test", "--quiet", "--package", "evroc-tests", "--test", "suites", "--", "sim::openapi"]);
    Ok(cargo.env("EVROC_RELEASE_OPENAPI", "1").current_dir(repo::root()).status()?.success())
}

/// Runs all of it with the output passed through; `Ok(true)` when everything passed.
pub fn run() -> Result<bool> {
    let mut failed = Vec::new();
    for step in steps() {
        let started = Instant::now();
        let status = Command::new(&step.command[0]).args(&step.command[1..]).current_dir(repo::root()).status()?;
        if !status.success() {
            failed.push(step.name);
        }
        report(step.name, status.success(), started.elapsed());
    }
    if !has_cargo_deny() {
        println!("deny: skipped, cargo-deny is not installed (`cargo install --locked cargo-deny`)");
    }
    let started = Instant::now();
    let tidy = tidy::run(false)?;
    if !tidy {
        failed.push("tidy");
    }
    report("tidy", tidy, started.elapsed());
    if !failed.is_empty() {
        println!("check: failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

fn report(name: &str, passed: bool, took: Duration) {
    println!("{name}: {} in {:.1} s", if passed { "passed" } else { "FAILED" }, took.as_secs_f64());
}
