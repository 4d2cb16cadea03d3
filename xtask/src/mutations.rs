//! Faults planted into the API server, one by one, in a copy of the repository: each must make the named test of the suite fail.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::process;
use serde::Deserialize;
use serde_json::Value;

use crate::repo;

/// The table of faults.
const TABLE: &str = "tests/api/mutations.json";
/// For a build after a change of one file, and for one test.
const BUILD: Duration = Duration::from_secs(15 * 60);
const TEST: Duration = Duration::from_secs(120);
/// Both packages in every build: with other ones the same dependencies would be built with other features.
const PACKAGES: [&str; 4] = ["--package", "evroc-api-suite", "--package", "evroc-apiserver"];

/// One fault.
#[derive(Deserialize)]
struct Mutation {
    /// Short and unique.
    name: String,
    /// What the server does wrong with it.
    about: String,
    /// Where.
    file: String,
    /// What stands there; the first occurrence is replaced.
    from: String,
    /// What stands there instead.
    to: String,
    /// The test that must fail.
    test: String,
}

enum Outcome {
    Found,
    Survived,
    Broken(String),
}

/// Plants each fault whose name contains `only`; `Ok(true)` when every one was found.
pub fn run(only: Option<&str>) -> Result<bool> {
    let text = std::fs::read_to_string(repo::root().join(TABLE)).with_context(|| format!("read {TABLE}"))?;
    let mut all: Vec<Mutation> = serde_json::from_str(&text).with_context(|| format!("read {TABLE}"))?;
    all.retain(|it| only.is_none_or(|only| it.name.contains(only)));
    ensure!(!all.is_empty(), "no mutation's name contains {:?}: expected one of {TABLE}", only.unwrap_or_default());
    let copy = Copy::make()?;
    let suite = copy.build_suite()?;
    let tests: BTreeSet<&str> = all.iter().map(|it| it.test.as_str()).collect();
    for test in tests {
        ensure!(copy.passes(&suite, test)?, "{test} fails without any fault: run `cargo test -p evroc-api-suite`");
    }
    let mut bad = Vec::new();
    for mutation in &all {
        let (word, is_fine) = match copy.plant(&suite, mutation)? {
            Outcome::Found => ("found".to_owned(), true),
            Outcome::Survived => ("SURVIVED".to_owned(), false),
            Outcome::Broken(why) => (format!("BROKEN ({why})"), false),
        };
        println!("{word:<9} {:<34} {} [{}]", mutation.name, mutation.about, mutation.test);
        if !is_fine {
            bad.push(mutation.name.as_str());
        }
    }
    println!("{} of {} faults were found", all.len() - bad.len(), all.len());
    if !bad.is_empty() {
        println!("not found: {}", bad.join(", "));
    }
    Ok(bad.is_empty())
}

/// A copy of the working tree, with a build folder of its own.
struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn make() -> Result<Self> {
        let base = repo::root().join("target/mutations");
        let copy = Copy { tree: base.join("tree"), target: base.join("target") };
        if copy.tree.exists() {
            std::fs::remove_dir_all(&copy.tree).context("remove the last copy")?;
        }
        let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let listed =
            Command::new("git").args(arguments).current_dir(repo::root()).output().context("list the files")?;
        for file in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|it| !it.is_empty()) {
            let (from, to) = (repo::root().join(file), copy.tree.join(file));
            if let (true, Some(folder)) = (from.is_file(), to.parent()) {
                std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
                std::fs::copy(&from, &to).with_context(|| format!("copy {file}"))?;
            }
        }
        Ok(copy)
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = Command::new(repo::cargo());
        cargo.args(arguments).args(PACKAGES).current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// Builds the server and the suite; where the suite is.
    fn build_suite(&self) -> Result<PathBuf> {
        println!("building the suite and the server in {}", self.tree.display());
        let output = process::run(
            &mut self.cargo(&["test", "--no-run", "--test", "api", "--example", "serve", "--message-format=json"]),
            BUILD,
        )?;
        ensure!(output.ok(), "the copy cannot be built:\n{}", output.both);
        let messages = output.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut programs = messages.filter(|it| it["target"]["name"] == "api" && it["executable"].is_string());
        let suite =
            programs.find(|it| it["manifest_path"].as_str().is_some_and(|it| it.ends_with("tests/api/Cargo.toml")));
        let suite = suite.and_then(|it| it["executable"].as_str().map(PathBuf::from));
        suite.context("cargo did not say where the suite is")
    }

    fn passes(&self, suite: &Path, test: &str) -> Result<bool> {
        let mut command = Command::new(suite);
        command.args(["--exact", test]).current_dir(self.tree.join("tests/api")).env_remove("EVROC_API_ORIGINAL");
        let output = process::run(command.env_remove("EVROC_API_KUBECONFIG"), TEST)?;
        if output.ok() && !output.stdout.contains("1 passed") {
            bail!("{test}: the suite has no such test");
        }
        Ok(output.ok())
    }

    fn plant(&self, suite: &Path, mutation: &Mutation) -> Result<Outcome> {
        let file = self.tree.join(&mutation.file);
        let sound = std::fs::read_to_string(&file).with_context(|| format!("read {}", mutation.file))?;
        if !sound.contains(&mutation.from) {
            return Ok(Outcome::Broken("its place is gone from the source".to_owned()));
        }
        std::fs::write(&file, sound.replacen(&mutation.from, &mutation.to, 1))?;
        let built = process::run(&mut self.cargo(&["build", "--quiet", "--example", "serve"]), BUILD)?;
        let outcome = if !built.ok() {
            let why = built.both.lines().find(|line| line.starts_with("error")).unwrap_or("it does not compile");
            Outcome::Broken(why.to_owned())
        } else if self.passes(suite, &mutation.test)? {
            Outcome::Survived
        } else {
            Outcome::Found
        };
        std::fs::write(&file, sound)?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_place_and_its_row() {
        let read = |file: &str| std::fs::read_to_string(repo::root().join(file)).expect(file);
        let all: Vec<Mutation> = serde_json::from_str(&read(TABLE)).expect("the table is read");
        let rows = read("docs/conformance.md");
        let mut names = BTreeSet::new();
        for mutation in &all {
            assert!(names.insert(mutation.name.as_str()), "{} stands twice", mutation.name);
            assert!(
                read(&mutation.file).contains(&mutation.from),
                "{}: its place is gone from the source",
                mutation.name
            );
            let row = format!("| `{}` | `{}` |", mutation.test, mutation.name);
            assert!(rows.contains(&row), "docs/conformance.md: expected a row {row}");
            let (module, test) = mutation.test.split_once("::").expect("a test is module::name");
            let suite = read(&format!("tests/api/suite/{module}.rs"));
            assert!(suite.contains(&format!("fn {test}(")), "{}: there is no test {}", mutation.name, mutation.test);
        }
        assert!(all.len() >= 40, "{} faults", all.len());
    }
}
