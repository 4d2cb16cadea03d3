//! A machine with nothing but Debian's base, Rust and an ordinary user: the README's packages, its first command and its tour, word for
//! word, and no trace after.
//!
//! It takes minutes (a build of everything without any cache), so it is the table's last row.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use evroc_tests::{names, process};

use super::step::Tour;

/// The commands that the README gives a new user: the packages, the clone, the start, and the tour that follows it.
#[derive(Debug, PartialEq, Eq)]
struct FirstLines {
    packages: String,
    clone: String,
    run: String,
    tour: Vec<String>,
}

/// Runs the README's first lines and its tour on a fresh machine, removes the cloud, and looks for files outside the declared list.
pub fn readme_holds_and_leaves_nothing(tour: &mut Tour) -> Result<()> {
    let readme = std::fs::read_to_string(names::repository().join("README.md")).context("read README.md")?;
    let first = first_lines(&readme)?;
    ensure!(first.tour.len() > 10, "README.md has no tour, only: {:?}", first.tour);
    let here = names::repository().join("tests/suites/tour/fresh");
    let folder = std::env::temp_dir().join(format!("{}-fresh", tour.cloud.instance()));
    let mut machine = Command::new(here.join("machine"));
    machine.arg(&folder).arg(names::repository());
    machine.args([&first.packages, &first.clone, &first.run]).args(&first.tour).arg("evrocd down --purge");
    let strays = "sudo env HOME=$HOME CLONE=$PWD /run/clone/tests/suites/tour/fresh/strays";
    machine.arg(format!("found=$({strays}); echo \"$found\"; [ -z \"$found\" ]"));
    // The network is the host's, so names and ports have to be a test's; the variable is all that differs from a user's machine.
    machine.env("EVROC_INSTANCE", names::random()).env("EVROC_UP_FLAGS", "--api-port 0 --https-port 0 --uplink none");
    let output = process::run(&mut machine, tour.left());
    let _ = std::fs::remove_dir_all(&folder);
    let output = output?;
    let lines: Vec<&str> = output.both.lines().collect();
    let end = lines[lines.len().saturating_sub(40)..].join("\n");
    ensure!(output.ok(), "{}; the end of what it printed:\n{end}", output.ending());
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
        tour: readme.lines().filter_map(|line| line.strip_prefix("$ ")).skip(1).map(typed).collect(),
    })
}

/// A console needs a terminal, and input that leaves it.
fn typed(line: &str) -> String {
    if line.contains(" console ") {
        return format!("printf '\\035' | script --quiet --return --command '{line}' /dev/null");
    }
    line.to_owned()
}

fn without_comment(line: &str) -> String {
    line.split(" #").next().unwrap_or(line).trim().to_owned()
}

#[test]
fn the_first_lines_are_found_in_the_readme() {
    let readme = "On Debian with the packages `git make`:\n\n```sh\ngit clone https://x/y && cd y\nmake run     # does it\nmake test\n```\n```console\n$ make run\ndone\n$ kubectl get vm\n```\n";
    let expected = FirstLines {
        packages: "git make".into(),
        clone: "git clone https://x/y && cd y".into(),
        run: "make run".into(),
        tour: vec!["kubectl get vm".into()],
    };
    assert_eq!(first_lines(readme).expect("lines"), expected);
}
