//! The lines of the README that kubectl has a part in, typed once more for each kubectl that there is besides the one that
//! `make run` brings: Debian's (1.20), which knows neither server-side apply by default nor OpenAPI v3, and the machine's own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{api, inputs};
use crate::tour::step::{Act, Tour};
use crate::tour::table;

/// Debian's, in the clone: `scripts/install-test-clients` brings it.
const DEBIANS: &str = ".tools/kubectl-debian/usr/bin/kubectl";

/// From an empty resource group to an empty one, with each of the others.
pub fn every_other_one_does(tour: &mut Tour) -> Result<()> {
    for (version, program) in others(tour)? {
        with(tour, &version, &program).with_context(|| format!("with kubectl {version}, {}", program.display()))?;
    }
    Ok(())
}

fn with(tour: &mut Tour, version: &str, program: &Path) -> Result<()> {
    let folder = program.parent().unwrap_or(Path::new("/")).display();
    tour.shell(&format!("export PATH_BEFORE=\"$PATH\" PATH={folder}:\"$PATH\""))?;
    ensure!(version_of(tour, "kubectl")? == version, "another kubectl answers");
    let passed = lines_and_looks(tour, version);
    tour.shell("export PATH=\"$PATH_BEFORE\"; unset PATH_BEFORE; hash -r")?;
    passed
}

fn lines_and_looks(tour: &mut Tour, version: &str) -> Result<()> {
    for (name, look) in [
        ("kinds are explained", api::kinds_are_explained as fn(&mut Tour) -> Result<()>),
        ("a disk lives", api::a_disk_lives),
        ("an unknown field", inputs::unknown_field),
        ("a bad value", inputs::bad_value),
    ] {
        look(tour).context(name)?;
    }
    let mut typed = 0;
    for step in table::steps() {
        let Act::Line(line, judge) = step.act else { continue };
        if !line.contains("kubectl ") {
            continue;
        }
        let output = tour.cloud.terminal.type_line(line, step.within.min(tour.left()))?;
        let printed = || format!("`{line}`; it printed:\n{}", output.both.trim_end());
        ensure!(output.ok(), "{}: {}", output.ending(), printed());
        judge(tour, &output).with_context(printed)?;
        println!("        {version:<20} {line:<60} {:>6.1} s", output.took.as_secs_f64());
        typed += 1;
    }
    ensure!(typed > 5, "only {typed} lines of the tour have a kubectl in them");
    Ok(())
}

/// The kubectls other than that of `make run`, by version.
fn others(tour: &Tour) -> Result<BTreeMap<String, PathBuf>> {
    let usual = version_of(tour, "kubectl")?;
    let debians = tour.cloud.terminal.clone.join(DEBIANS);
    ensure!(debians.exists(), "expected {}: scripts/install-test-clients brings it", debians.display());
    let path = tour.shell("printf %s \"$PATH\"")?;
    let on_path = path.split(':').map(|folder| Path::new(folder).join("kubectl"));
    let mut found = BTreeMap::new();
    for program in std::iter::once(debians).chain(on_path) {
        let is_program = program.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
        if is_program {
            found.entry(version_of(tour, &program.display().to_string())?).or_insert(program);
        }
    }
    found.remove(&usual);
    Ok(found)
}

/// `v1.20.2`, in the one form that all of them print.
fn version_of(tour: &Tour, kubectl: &str) -> Result<String> {
    let printed = tour.shell(&format!("{kubectl} version --client -o json"))?;
    let printed: serde_json::Value = serde_json::from_str(&printed).with_context(|| format!("read {printed:?}"))?;
    let version = printed["clientVersion"]["gitVersion"].as_str();
    version.map(str::to_owned).with_context(|| format!("{kubectl} does not print its version: {printed}"))
}
