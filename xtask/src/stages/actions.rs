//! The actions of the stages.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use super::runner::{Program, Run};
use crate::{check, repo};

/// Packages whose tests make namespaces, taps, mounts or control groups.
const NEED_ROOT: &[&str] = &["evroc-node", "evroc-vmm", "evrocd", "evroc-tests"];

/// The suites over the finished product.
const SUITES: &str = "evroc-tests suites";

/// The suites of the API, which run over any store.
const API: &[&str] = &["evroc-apiserver api", "evroc-api-suite api"];
/// The variable that selects the store of those suites, and the store that is not the default.
const TEST_STORE: &str = "EVROC_TEST_STORE";
const ETCD: &str = "etcd-3.4";

/// Installs missing packages, and fetches the clients and servers of the suites.
pub fn packages(run: &mut Run) -> Result<()> {
    for script in ["install-host-packages", "install-test-clients", "etcd"] {
        let mut command = run.command(&repo::root().join("scripts").join(script));
        run.check(script, &mut command)?;
    }
    Ok(())
}

/// Builds the demo images and the systems that cloud-init runs in; what is in the cache is not built again.
pub fn images(run: &mut Run) -> Result<()> {
    for script in ["images/build", "scripts/cloud-init"] {
        let mut command = run.command(&repo::root().join(script));
        run.check(script, &mut command)?;
    }
    Ok(())
}

/// Compiles programs and tests once; what does not compile fails here, and the rest is still tested.
pub fn build(run: &mut Run) -> Result<()> {
    let mut cargo = run.command(Path::new(&repo::cargo()));
    let arguments = "build --workspace --all-targets --locked --keep-going --message-format=json-render-diagnostics";
    cargo.args(arguments.split(' '));
    let started = Instant::now();
    let output = run.output(&mut cargo)?;
    let printed: Vec<&str> = output.both.lines().filter(|line| !line.starts_with('{')).collect();
    run.append_log("cargo build", &printed.join("\n"))?;
    run.programs = output.stdout.lines().filter_map(|line| program(&serde_json::from_str(line).ok()?)).collect();
    run.programs.sort_by(|left, right| left.name.cmp(&right.name));
    if output.ok() {
        run.record_pass("programs and tests", started.elapsed());
    } else {
        let from = printed.iter().position(|line| line.starts_with("error")).unwrap_or(0);
        let shown: Vec<&str> = printed[from..].iter().take(60).copied().collect();
        run.record_failure("programs and tests", &format!("{}\ncargo build: {}", shown.join("\n"), output.ending()));
    }
    Ok(())
}

/// Format, lints, invariants, licences.
pub fn check(run: &mut Run) -> Result<()> {
    for step in check::steps() {
        let mut command = run.command(Path::new(&step.command[0]));
        run.check(step.name, command.args(&step.command[1..]))?;
    }
    if !check::has_cargo_deny() {
        run.record_skipped("deny", "cargo-deny is not installed and takes minutes to build");
    }
    let mut tidy = run.command(&run.own_program);
    run.check("tidy", tidy.arg("tidy")).map(drop)
}

/// The tests of every crate.
pub fn unit(run: &mut Run) -> Result<()> {
    for program in run.programs.clone() {
        if program.name != SUITES {
            run.test(&program, &[], NEED_ROOT.contains(&program.package.as_str()))?;
        }
    }
    // Every store provides what the API needs: its suites pass on both.
    for api in run.programs.clone().iter().filter(|program| API.contains(&program.name.as_str())) {
        run.test_with(api, &[(TEST_STORE, ETCD)], " on etcd")?;
    }
    Ok(())
}

/// The suites, one test after the other: they share two cores with the guests that they start.
pub fn suites(run: &mut Run) -> Result<()> {
    let suites = run.programs.iter().find(|program| program.name == SUITES).cloned();
    let suites = suites.context("the suites were not built: see the output of the stage `build`")?;
    run.test(&suites, &["--test-threads=1"], true)
}

/// Fails if the run has left anything: on the machine, or in its temporary folder.
pub fn leftovers(run: &mut Run) -> Result<()> {
    let mut compare = run.as_root(&run.own_program);
    compare.args(["leftovers", "compare"]).arg(run.snapshot());
    run.check("machine", &mut compare)?;
    let started = Instant::now();
    let files = run.temporary_entries();
    if files.is_empty() {
        run.record_pass("temporary files", started.elapsed());
    } else {
        run.record_failure("temporary files", &format!("left behind:\n{}", files.join("\n")));
    }
    Ok(())
}

/// Returns the test program that one of cargo's messages reports.
fn program(message: &Value) -> Option<Program> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    // `path+file:///…/crates/node#evroc-node@0.1.0`, or `…/crates/evrocd#0.1.0` where folder and package have the same name.
    let id = message["package_id"].as_str()?;
    let (folder, name) = id.rsplit_once('#')?;
    let package =
        name.split_once('@').map_or_else(|| folder.rsplit('/').next().unwrap_or_default(), |(name, _)| name).to_owned();
    let target = message["target"]["name"].as_str()?;
    let is_test = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
    let name = if is_test { format!("{package} {target}") } else { package.clone() };
    Some(Program { name, package, dir, executable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_read_from_cargos_message() {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "package_id": "path+file:///x/tests#evroc-tests@0.1.0", "manifest_path": "/x/tests/Cargo.toml",
            "target": {"kind": ["test"], "name": "suites"}, "profile": {"test": true}, "executable": "/x/target/debug/deps/suites-1",
        });
        let program = program(&message).expect("a program");
        assert_eq!((program.name.as_str(), program.package.as_str()), ("evroc-tests suites", "evroc-tests"));
        assert_eq!(program.dir, Path::new("/x/tests"));
    }

    #[test]
    fn a_package_with_the_name_of_its_folder_is_read_too() {
        let message = serde_json::json!({
            "reason": "compiler-artifact", "package_id": "path+file:///x/crates/evrocd#0.1.0", "manifest_path": "/x/crates/evrocd/Cargo.toml",
            "target": {"kind": ["bin"], "name": "evrocd"}, "profile": {"test": true}, "executable": "/x/t",
        });
        assert_eq!(program(&message).expect("a program").name, "evrocd");
    }
}
