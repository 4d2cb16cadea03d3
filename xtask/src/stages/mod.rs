//! `make test`: every stage in order, each within its budget, and one count over all of them.
//!
//! A budget finds what hangs; on a slow or busy machine it is longer ([`pace`]). A stage that uses it up is ended, and what it left on
//! the machine is removed.
//!
//! A stage does not stop the run when it fails: after half an hour the developer wants all results. The output of a stage goes to
//! `target/test-logs/<stage>.log`; the screen shows one line per program and, for a failure, the part of the log that explains it.
//! `target/test-report.json` holds the same for machines. The last line is `N passed, N failed`.

mod actions;
mod libtest;
mod pace;
mod report;
mod runner;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use pace::Burners;
use report::Report;
use runner::Run;
pub use runner::is_root;

/// A part of the run.
struct Stage {
    name: &'static str,
    /// More than it takes on two idle cores with empty caches, less than would hide a hang. Together they stay under the hour that the
    /// whole may take.
    budget: Duration,
    about: &'static str,
    act: fn(&mut Run) -> Result<()>,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const STAGES: &[Stage] = &[
    Stage { name: "packages", budget: minutes(3), about: "install what the host lacks", act: actions::packages },
    Stage {
        name: "images",
        budget: minutes(3),
        about: "build the demo images that are not cached",
        act: actions::images,
    },
    Stage { name: "build", budget: minutes(10), about: "compile the programs and every test", act: actions::build },
    Stage { name: "check", budget: minutes(4), about: "format, clippy, tidy, licences", act: actions::check },
    Stage { name: "unit", budget: minutes(10), about: "tests of the crates", act: actions::unit },
    Stage {
        name: "suites",
        budget: minutes(22),
        about: "tests of the finished product, the tour among them",
        act: actions::suites,
    },
    Stage {
        name: "leftovers",
        budget: minutes(1),
        about: "nothing of all that is left on the machine",
        act: actions::leftovers,
    },
];

/// The stage that compiles, and those that run what it has compiled: it runs before them also when only they are named.
const BUILD: &str = "build";
const NEED_BUILD: [&str; 2] = ["unit", "suites"];

/// Runs the stages again and again while `burners` threads keep the processors busy; `Ok(true)` when no round had a failure.
pub fn run_rounds(only: &[String], filter: Option<&str>, rounds: usize, burners: usize) -> Result<bool> {
    let burning = Burners::start(burners);
    let mut failed = Vec::new();
    for round in 1..=rounds {
        if rounds > 1 {
            println!("== round {round} of {rounds}");
        }
        if !run(only, filter, false)? {
            failed.push(round.to_string());
        }
    }
    drop(burning);
    if rounds > 1 {
        let which = if failed.is_empty() { "none".to_owned() } else { failed.join(", ") };
        println!("{rounds} rounds, of which failed: {which}");
    }
    Ok(failed.is_empty())
}

/// Runs the stages named (all, when none is); `Ok(true)` when nothing failed.
pub fn run(only: &[String], filter: Option<&str>, list: bool) -> Result<bool> {
    if let Some(unknown) = only.iter().find(|name| !STAGES.iter().any(|stage| stage.name == name.as_str())) {
        let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        bail!("--stage {unknown}: expected one of {}", names.join(", "));
    }
    if list {
        for stage in STAGES {
            println!("{:<10} {:>3} min  {}", stage.name, stage.budget.as_secs() / 60, stage.about);
        }
        return Ok(true);
    }
    // Tests of an earlier build would judge what is not there any more, and none would count as no failure.
    let needs_build = only.iter().any(|name| NEED_BUILD.contains(&name.as_str()));
    let chosen = |stage: &&Stage| {
        let is_named = only.is_empty() || only.iter().any(|name| name == stage.name);
        is_named || (needs_build && stage.name == BUILD)
    };
    let started = Instant::now();
    let mut run = Run::begin(filter)?;
    let mut report = Report::default();
    for stage in STAGES.iter().filter(chosen) {
        println!("== {} ({})", stage.name, stage.about);
        run.enter(stage.name, stage.budget);
        let began = Instant::now();
        if let Err(error) = (stage.act)(&mut run) {
            run.record_failure(stage.name, &format!("{error:#}"));
        }
        report.add(stage.name, began.elapsed(), stage.budget, run.leave());
    }
    run.end();
    report.print(started.elapsed());
    report.write()?;
    Ok(report.passed_all())
}
