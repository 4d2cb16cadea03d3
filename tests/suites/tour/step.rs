//! A step of the tour: a line that the user types, or a look behind it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::process::Output;

use super::cloud::Cloud;
use super::milestone::{self, Milestone};

/// The state shared by the steps, which run in order.
pub struct Tour {
    /// The cloud that the tour is about.
    pub cloud: Cloud,
    /// The output of the README's lines.
    pub transcript: Vec<(String, String)>,
    /// Values that one step stores for a later one.
    pub notes: BTreeMap<&'static str, String>,
    /// The deadline of the step that runs now.
    deadline: Instant,
}

/// One row of the table.
pub struct Step {
    /// From when on it has to pass.
    pub milestone: Milestone,
    /// How long it may take on two cores without hardware acceleration.
    pub within: Duration,
    /// The action.
    pub act: Act,
}

/// The action of a step.
pub enum Act {
    /// A line of the README's tour, and the condition on its output.
    Line(&'static str, fn(&mut Tour, &Output) -> Result<()>),
    /// A line of the README's tour that a person talks to.
    Conversation(&'static str, fn(&mut Tour, &str) -> Result<String>),
    /// A look behind the lines, with a name.
    Look(&'static str, fn(&mut Tour) -> Result<()>),
}

impl Step {
    /// Its name in reports.
    pub fn name(&self) -> String {
        match &self.act {
            Act::Line(line, _) | Act::Conversation(line, _) => format!("$ {line}"),
            Act::Look(name, _) => (*name).to_owned(),
        }
    }

    /// Runs it; the error states what was expected and what was found.
    pub fn run(&self, tour: &mut Tour, within: Duration) -> Result<()> {
        tour.deadline = Instant::now() + within;
        match &self.act {
            Act::Line(line, judge) => {
                let output = tour.cloud.terminal.type_line(line, within)?;
                ensure!(output.ok(), "{}; it printed:\n{}", output.ending(), output.both.trim_end());
                judge(tour, &output).with_context(|| format!("it printed:\n{}", output.both.trim_end()))?;
                tour.record(self.milestone, line, &output.both);
            }
            Act::Conversation(line, talk) => {
                let printed = talk(tour, line)?;
                tour.record(self.milestone, line, &printed);
            }
            Act::Look(_, look) => look(tour)?,
        }
        Ok(())
    }
}

impl Tour {
    /// A tour at its beginning.
    pub fn new(cloud: Cloud) -> Tour {
        Tour { cloud, transcript: Vec::new(), notes: BTreeMap::new(), deadline: Instant::now() }
    }

    /// How long the step may still take.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Types a line that is not in the README; the error has what it printed.
    pub fn shell(&self, line: &str) -> Result<String> {
        let output = self.cloud.terminal.type_line(line, self.left())?;
        ensure!(output.ok(), "`{line}`: {}; it printed:\n{}", output.ending(), output.both.trim_end());
        Ok(output.stdout)
    }

    /// Types a line that has to be refused, and returns its output.
    pub fn refused(&self, line: &str) -> Result<String> {
        let output = self.cloud.terminal.type_line(line, self.left())?;
        ensure!(!output.ok(), "`{line}` was accepted; it printed:\n{}", output.both.trim_end());
        ensure!(!output.timed_out, "`{line}`: {}; it printed:\n{}", output.ending(), output.both.trim_end());
        Ok(output.both)
    }

    /// One value of one object, by JSONPath.
    pub fn value(&self, object: &str, path: &str) -> Result<String> {
        self.shell(&format!("kubectl get {object} -o jsonpath='{{{path}}}'"))
    }

    /// Polls until the condition holds; the error is the last reason why it did not.
    pub fn eventually<T>(&self, mut attempt: impl FnMut(&Tour) -> Result<T>) -> Result<T> {
        let mut last = None;
        let found = evroc_tests::process::eventually(self.left(), || match attempt(self) {
            Ok(value) => {
                last = Some(Ok(value));
                true
            }
            Err(error) => {
                last = Some(Err(error));
                false
            }
        });
        match last {
            Some(Ok(value)) if found => Ok(value),
            Some(Err(error)) => Err(error.context("not within the deadline")),
            _ => bail!("no time was left to look"),
        }
    }

    fn record(&mut self, milestone: Milestone, line: &str, output: &str) {
        if milestone <= milestone::current() {
            self.transcript.push((line.to_owned(), output.trim_end().to_owned()));
        }
    }
}
