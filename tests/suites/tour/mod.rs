//! The first hour of a new user, with the clients that a user has: kubectl, curl, skopeo, ssh, `evroc`, `evrocd`.
//!
//! [`table`] has the steps in order, each with the milestone from which it has to pass. Steps of later milestones run too, and have to
//! fail: so advancing is not forgotten, and no step passes without proving anything. The lines of the README's tour are the steps with a
//! [`step::Act::Line`]; the others look behind them. Every cloud here has a random instance name and leaves nothing behind.
//!
//! `UPDATE=1` rewrites the README's tour from what the lines really printed.

mod checks;
mod cloud;
mod fresh;
mod milestone;
mod readme;
mod step;
mod table;
mod terminal;
mod verdict;

use std::time::Instant;

use cloud::Cloud;
use step::Tour;
use verdict::{Judgement, judge};

/// The longest that a step of a later milestone is tried: it is expected to fail, and the run has other things to do.
const PATIENCE_FOR_LATER: std::time::Duration = std::time::Duration::from_secs(15);

/// The first and the last line of a reason: the attempt, and its result.
fn in_one_line(reason: &str) -> String {
    let lines: Vec<&str> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let shown = match lines.as_slice() {
        [first, .., last] => format!("{first} … {last}"),
        lines => lines.concat(),
    };
    shown.chars().take(200).collect()
}

#[test]
fn the_tour_of_the_readme() {
    let current = milestone::current();
    let cloud = Cloud::prepare().expect("prepare a cloud");
    let mut tour = Tour::new(cloud);
    let mut wrong = Vec::new();
    for step in table::steps() {
        let started = Instant::now();
        let later = step.milestone > current;
        let within = if later { step.within.min(PATIENCE_FOR_LATER) } else { step.within };
        let outcome = step.run(&mut tour, within).map_err(|error| format!("{error:#}"));
        let verdict = judge(step.milestone, current, outcome);
        let (word, reason) = match &verdict {
            Judgement::Passed => ("passed", String::new()),
            Judgement::Expected(reason) => ("later", format!(": {}", in_one_line(reason))),
            Judgement::Failed(reason) => ("FAILED", format!(": {reason}\n{}", tour.cloud.last_words())),
            Judgement::Early => {
                ("EARLY", format!(": belongs to {:?}, the product is at {current:?}: advance it", step.milestone))
            }
        };
        println!(
            "{word:<7} {:?} {:<60} {:>6.1} s{reason}",
            step.milestone,
            step.name(),
            started.elapsed().as_secs_f64()
        );
        if matches!(verdict, Judgement::Failed(_) | Judgement::Early) {
            wrong.push(format!("{word} {:?} {}", step.milestone, step.name()));
        }
    }
    let leftovers = tour.cloud.purge();
    if current >= milestone::Milestone::M3 {
        wrong.extend(leftovers.iter().map(|leftover| format!("left behind after the purge: {leftover}")));
    }
    if let Err(error) = readme::check_or_update(&tour.transcript, &tour.cloud.terminal) {
        wrong.push(format!("README.md: {error:#}"));
    }
    assert!(wrong.is_empty(), "the tour does not hold at {current:?}:\n{}", wrong.join("\n"));
}
