//! A machine with nothing but Debian's base and Rust: the README's packages and its first command, word for word, and no trace after.
//!
//! It takes minutes (a build of everything without any cache), so it has its own row at the end of the table and runs from M7 on.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use evroc_tests::{names, process};

use super::milestone::{self, Milestone};
use super::step::Tour;

/// What the README tells a new user: the packages, the clone, the start.
#[derive(Debug, PartialEq, Eq)]
struct FirstLines {
    packages: String,
    clone: String,
    run: String,
}

/// Runs the README's first lines on a fresh machine, looks that the cloud answers, removes it, and looks for files outside the
/// declared list.
pub fn readme_holds_and_leaves_nothing(tour: &mut Tour) -> Result<()> {
    // Trying it half would only leave half a machine.
    ensure!(milestone::current() >= Milestone::M7, "it is tried from M7 on");
    let readme = std::fs::read_to_string(names::repository().join("README.md")).context("read README.md")?;
    let first = first_lines(&readme)?;
    let here = names::repository().join("tests/suites/tour/fresh");
    let folder = std::env::temp_dir().join(format!("{}-fresh", tour.cloud.instance()));
    let mut machine = Command::new(here.join("machine"));
    machine.arg(&folder).arg(names::repository());
    machine.arg(format!("apt-get update -q && apt-get install -q -y {}", first.packages));
    machine.args([first.clone.as_str(), first.run.as_str()]);
    machine.args(["eval \"$(scripts/env)\"", "kubectl get diskimages,hosts", "make stop", "evrocd down --purge"]);
    machine.arg(
        "CLONE=$PWD /run/clone/tests/suites/tour/fresh/strays >/run/strays; cat /run/strays; [ ! -s /run/strays ]",
    );
    // The network is the host's, so names and ports have to be a test's; the variable is all that differs from a user's machine.
    machine.env("EVROC_INSTANCE", names::random()).env("EVROC_UP_FLAGS", "--api-port 0 --https-port 0 --uplink none");
    let output = process::run(&mut machine, tour.left());
    let _ = std::fs::remove_dir_all(&folder);
    let output = output?;
    let lines: Vec<&str> = output.both.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    ensure!(output.ok(), "{}; the end of what it printed:\n{end}", output.ending());
    ensure!(
        output.stdout.contains("tiny.1-0.1"),
        "the cloud did not show its images; the end of what it printed:\n{end}"
    );
    Ok(())
}

/// The packages are the first code span after "packages" that names several; the commands are the lines of the first block of shell.
fn first_lines(readme: &str) -> Result<FirstLines> {
    let packages = readme.split("packages `").nth(1).and_then(|rest| rest.split('`').next());
    let block = readme
        .split("```sh\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .context("README.md has no block of shell")?;
    let line = |word: &str| block.lines().map(str::trim).find(|line| line.starts_with(word)).map(without_comment);
    Ok(FirstLines {
        packages: packages
            .context("README.md does not name the packages, as in \"the packages `git make`\"")?
            .to_owned(),
        clone: line("git clone ").context("README.md has no line `git clone`")?,
        run: line("make run").context("README.md has no line `make run`")?,
    })
}

fn without_comment(line: &str) -> String {
    line.split(" #").next().unwrap_or(line).trim().to_owned()
}

#[test]
fn the_first_lines_are_found_in_the_readme() {
    let readme = "On Debian with the packages `git make`:\n\n```sh\ngit clone https://x/y && cd y\nmake run     # does it\nmake test\n```\n";
    let expected = FirstLines {
        packages: "git make".into(),
        clone: "git clone https://x/y && cd y".into(),
        run: "make run".into(),
    };
    assert_eq!(first_lines(readme).expect("lines"), expected);
}
