//! `evrocd doctor`: is this machine fit, and if not, what to do.
//!
//! Facts are gathered in [`facts`] and judged in [`judge`], which is pure. Every finding is one sentence: what was found, what it means, what
//! to do. Failures make the exit code 1; warnings do not.

mod facts;
mod judge;
#[cfg(test)]
mod tests;
mod versions;

use std::path::Path;

use serde::Serialize;

pub use facts::gather;
pub use judge::judge;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, with a cost that the finding names.
    Warning,
    /// Does not work.
    Failure,
}

/// One checked thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// How bad.
    pub level: Level,
    /// One sentence.
    pub message: String,
}

/// Checks the machine; `state_root` is where the state folder is or will be.
pub fn examine(state_root: &Path) -> Vec<Finding> {
    judge(&gather(state_root))
}

/// The findings as text, worst last so that it is what the eye meets.
pub fn text(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.level);
    let mut out = String::new();
    for finding in sorted {
        let word = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "WARNING",
            Level::Failure => "FAILURE",
        };
        out.push_str(&format!("{word:<8} {:<12} {}\n", finding.check, finding.message));
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    out.push_str(&match (count(Level::Failure), count(Level::Warning)) {
        (0, 0) => "this machine is fit\n".to_owned(),
        (0, warnings) => format!("this machine is fit, with {warnings} warnings\n"),
        (failures, _) => format!("this machine is not fit: {failures} failures\n"),
    });
    out
}
