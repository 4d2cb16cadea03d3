//! Faults planted into the API server, one by one, in a copy of the repository: each must make the named test of the suite fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::process;
use serde::Deserialize;
use serde_json::Value;

use crate::repo;

/// A table of faults and the tests that must find them.
struct Suite {
    /// The faults.
    table: &'static str,
    /// The package of the tests, by its manifest.
    manifest: &'static str,
    /// The package that is rebuilt after a fault was planted.
    build: &'static [&'static str],
}

/// The suite over HTTP starts the server as a program; the server's own tests have it in their process.
const SUITES: [Suite; 2] = [
    Suite {
        table: "tests/api/mutations.json",
        manifest: "tests/api/Cargo.toml",
        build: &["build", "--quiet", "--example", "serve"],
    },
    Suite {
        table: "crates/apiserver/tests/mutations.json",
        manifest: "crates/apiserver/Cargo.toml",
        build: &["test", "--quiet", "--no-run", "--test", "api"],
    },
];
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
    /// The faulty behaviour of the server with it.
    about: String,
    /// The file.
    file: String,
    /// The text to replace; the first occurrence is replaced.
    from: String,
    /// The replacement.
    to: String,
    /// The test that must fail.
    test: String,
}

enum Outcome {
    Found,
    Survived,
    Broken(String),
}

/// Plants each fault whose name, or whose table's, contains `only`; `Ok(true)` when every one was found.
pub fn run(only: Option<&str>) -> Result<bool> {
    let mut all: Vec<(&Suite, Mutation)> = Vec::new();
    for suite in &SUITES {
        all.extend(suite.mutations()?.into_iter().map(|mutation| (suite, mutation)));
    }
    let tables = SUITES.map(|it| it.table).join(" or ");
    all.retain(|(suite, it)| only.is_none_or(|only| it.name.contains(only) || suite.table.contains(only)));
    ensure!(!all.is_empty(), "no mutation's name contains {:?}: expected one of {tables}", only.unwrap_or_default());
    let copy = Copy::make()?;
    let programs = copy.build_suites()?;
    let tests: BTreeSet<(&str, &str)> = all.iter().map(|(suite, it)| (suite.manifest, it.test.as_str())).collect();
    for (manifest, test) in tests {
        let is_sound = copy.passes(&programs, manifest, test)?;
        ensure!(is_sound, "{test} of {manifest} fails without any fault: run `cargo test --manifest-path {manifest}`");
    }
    let mut bad = Vec::new();
    for (suite, mutation) in &all {
        let (word, is_fine) = match copy.plant(&programs, suite, mutation)? {
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

impl Suite {
    fn mutations(&self) -> Result<Vec<Mutation>> {
        let text = std::fs::read_to_string(repo::root().join(self.table));
        let text = text.with_context(|| format!("read {}", self.table))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", self.table))
    }
}

/// The tests' programs, by the manifest of their package.
type Programs = BTreeMap<&'static str, PathBuf>;

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

    /// Builds the server and the suites; where the suites are.
    fn build_suites(&self) -> Result<Programs> {
        println!("building the suites and the server in {}", self.tree.display());
        // By `cargo test` the example would be a test of itself.
        let server = process::run(&mut self.cargo(&["build", "--example", "serve"]), BUILD)?;
        ensure!(server.ok(), "the copy cannot be built:\n{}", server.both);
        let suites = ["test", "--no-run", "--test", "api", "--message-format=json"];
        let output = process::run(&mut self.cargo(&suites), BUILD)?;
        ensure!(output.ok(), "the copy cannot be built:\n{}", output.both);
        let messages: Vec<Value> = output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut programs = Programs::new();
        for suite in &SUITES {
            let is_its = |it: &&Value| {
                let manifest = it["manifest_path"].as_str().is_some_and(|it| it.ends_with(suite.manifest));
                manifest && it["target"]["name"] == "api" && it["target"]["kind"][0] == "test"
            };
            let program = messages.iter().filter(is_its).find_map(|it| it["executable"].as_str());
            let program =
                program.with_context(|| format!("cargo did not say where the tests of {} are", suite.manifest))?;
            programs.insert(suite.manifest, program.into());
        }
        Ok(programs)
    }

    fn passes(&self, programs: &Programs, manifest: &str, test: &str) -> Result<bool> {
        let program = programs.get(manifest).with_context(|| format!("no tests of {manifest} were built"))?;
        let folder = self.tree.join(manifest.trim_end_matches("Cargo.toml"));
        let mut command = Command::new(program);
        command.args(["--exact", test]).current_dir(folder).env_remove("EVROC_API_ORIGINAL");
        let output = process::run(command.env_remove("EVROC_API_KUBECONFIG"), TEST)?;
        if output.ok() && !output.stdout.contains("1 passed") {
            bail!("{test}: the suite has no such test");
        }
        Ok(output.ok())
    }

    fn plant(&self, programs: &Programs, suite: &Suite, mutation: &Mutation) -> Result<Outcome> {
        let file = self.tree.join(&mutation.file);
        let sound = std::fs::read_to_string(&file).with_context(|| format!("read {}", mutation.file))?;
        if !sound.contains(&mutation.from) {
            return Ok(Outcome::Broken("its place does not exist in the source any more".to_owned()));
        }
        std::fs::write(&file, sound.replacen(&mutation.from, &mutation.to, 1))?;
        let built = process::run(&mut self.cargo(suite.build), BUILD)?;
        let outcome = if !built.ok() {
            let why = built.both.lines().find(|line| line.starts_with("error")).unwrap_or("it does not compile");
            Outcome::Broken(why.to_owned())
        } else if self.passes(programs, suite.manifest, &mutation.test)? {
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
        let all: Vec<(&Suite, Mutation)> = SUITES
            .iter()
            .flat_map(|suite| suite.mutations().expect("the table is read").into_iter().map(move |it| (suite, it)))
            .collect();
        let rows = read("docs/conformance.md");
        let mut names = BTreeSet::new();
        for (suite, mutation) in &all {
            assert!(names.insert(mutation.name.as_str()), "{} occurs twice", mutation.name);
            assert!(
                read(&mutation.file).contains(&mutation.from),
                "{}: its place does not exist in the source any more",
                mutation.name
            );
            let row = format!("| `{}` | `{}` |", mutation.test, mutation.name);
            assert!(rows.contains(&row), "docs/conformance.md: expected a row {row}");
            let (module, test) = mutation.test.split_once("::").expect("a test is module::name");
            let folder = suite.manifest.trim_end_matches("Cargo.toml");
            let sources = ["suite", "tests/api"].map(|modules| format!("{folder}{modules}/{module}.rs"));
            let source = sources.iter().find(|file| repo::root().join(file).exists()).expect("the test's module");
            let source = read(source);
            assert!(source.contains(&format!("fn {test}(")), "{}: there is no test {}", mutation.name, mutation.test);
        }
        assert!(all.len() >= 40, "{} faults", all.len());
    }
}
