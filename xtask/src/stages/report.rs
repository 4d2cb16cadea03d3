//! The count over all stages, for people and for machines.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::repo;

/// The result of one program or check.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Tally {
    /// How many tests passed.
    pub passed: usize,
    /// The names of those that failed.
    pub failed: Vec<String>,
    /// How many were not run: they need what this machine or user lacks.
    pub skipped: usize,
}

impl Tally {
    /// Adds another count.
    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped += other.skipped;
    }
}

/// All stages.
#[derive(Default)]
pub struct Report {
    stages: Vec<Line>,
}

struct Line {
    name: &'static str,
    took: Duration,
    budget: Duration,
    tally: Tally,
}

impl Report {
    /// Adds a finished stage.
    pub fn add(&mut self, name: &'static str, took: Duration, budget: Duration, tally: Tally) {
        self.stages.push(Line { name, took, budget, tally });
    }

    /// Whether no test of any stage failed.
    pub fn passed_all(&self) -> bool {
        self.stages.iter().all(|line| line.tally.failed.is_empty())
    }

    /// The table of stages, the names of failures, and the last line.
    pub fn print(&self, total: Duration) {
        println!("\n{:<10} {:>9} {:>9} {:>8} {:>8} {:>8}", "stage", "time", "budget", "passed", "failed", "skipped");
        for line in &self.stages {
            let (took, budget) = (seconds(line.took), seconds(line.budget));
            let Tally { passed, failed, skipped } = &line.tally;
            println!("{:<10} {took:>9} {budget:>9} {passed:>8} {:>8} {skipped:>8}", line.name, failed.len());
        }
        println!("{:<10} {:>9}", "all", seconds(total));
        for line in &self.stages {
            for name in &line.tally.failed {
                println!("FAILED {}: {name}", line.name);
            }
        }
        let (passed, failed) = self.counts();
        let skipped = self.skipped();
        if skipped > 0 {
            println!("{skipped} skipped");
        }
        println!("{passed} passed, {failed} failed");
    }

    /// Writes `target/test-report.json`.
    pub fn write(&self) -> Result<()> {
        let (passed, failed) = self.counts();
        let stage = |line: &Line| {
            json!({
                "name": line.name,
                "seconds": line.took.as_secs_f64(),
                "budgetSeconds": line.budget.as_secs(),
                "passed": line.tally.passed,
                "failed": line.tally.failed,
                "skipped": line.tally.skipped,
            })
        };
        let stages: Vec<_> = self.stages.iter().map(stage).collect();
        let text = serde_json::to_string_pretty(&json!({
            "passed": passed,
            "failed": failed,
            "skipped": self.skipped(),
            "stages": stages,
        }))?;
        let file = repo::root().join("target/test-report.json");
        std::fs::create_dir_all(repo::root().join("target")).context("make the folder target")?;
        std::fs::write(&file, text + "\n").with_context(|| format!("write {}", file.display()))
    }

    fn skipped(&self) -> usize {
        self.stages.iter().map(|line| line.tally.skipped).sum()
    }

    fn counts(&self) -> (usize, usize) {
        let passed = self.stages.iter().map(|line| line.tally.passed).sum();
        let failed = self.stages.iter().map(|line| line.tally.failed.len()).sum();
        (passed, failed)
    }
}

fn seconds(time: Duration) -> String {
    format!("{}:{:04.1}", time.as_secs() / 60, time.as_secs_f64() % 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_anywhere_fails_the_whole() {
        let mut report = Report::default();
        report.add("unit", Duration::from_secs(61), Duration::from_secs(60), Tally { passed: 3, ..Tally::default() });
        assert!(report.passed_all());
        report.add(
            "suites",
            Duration::ZERO,
            Duration::ZERO,
            Tally { passed: 1, failed: vec!["tour".into()], skipped: 2 },
        );
        assert!(!report.passed_all());
        assert_eq!((report.counts(), report.skipped()), ((4, 1), 2));
        assert_eq!(seconds(Duration::from_secs(61)), "1:01.0");
    }
}
