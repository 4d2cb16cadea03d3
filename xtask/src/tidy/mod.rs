//! The invariants of ARCHITECTURE.md that the compiler cannot hold.
//!
//! A check is a function from the repository to findings; it reads nothing but what [`Repo`] holds. The result depends on the
//! files alone, never on commits, branches or the day. Every check has a test that plants the fault it is for.

mod architecture;
mod circles;
mod decisions;
mod english;
mod floors;
mod imports;
mod layers;
mod manifests;
mod purity;
mod scrub;
mod sizes;
mod test_binaries;
mod unsafe_code;
mod waits;
mod words;

use std::time::Instant;

use anyhow::Result;

use crate::repo::{self, Repo};

/// Something a check has to say about one place.
#[derive(Debug, PartialEq)]
pub struct Finding {
    /// File, and line where there is one: `crates/api/src/lib.rs:12`.
    pub place: String,
    /// The message: what was expected, what was found, what to do.
    pub message: String,
    /// Whether it fails the run.
    pub severity: Severity,
}

/// Whether a finding fails the run.
#[derive(Debug, PartialEq, Clone, Copy)]
pub enum Severity {
    /// The invariant is broken.
    Error,
    /// Worth a look.
    Warning,
}

impl Finding {
    /// A finding that fails the run.
    pub fn error(place: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { place: place.into(), message: message.into(), severity: Severity::Error }
    }

    /// A finding that is only shown on request.
    pub fn warning(place: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding { place: place.into(), message: message.into(), severity: Severity::Warning }
    }
}

type Check = fn(&Repo) -> Vec<Finding>;

/// Every check, with the name that its findings carry.
const CHECKS: &[(&str, Check)] = &[
    ("layers", layers::check),
    ("floors", floors::check),
    ("circles", circles::check),
    ("purity", purity::check),
    ("unsafe", unsafe_code::check),
    ("manifests", manifests::check),
    ("test-binaries", test_binaries::check),
    ("sizes", sizes::check),
    ("waits", waits::check),
    ("words", words::check),
    ("english", english::check),
    ("architecture", architecture::check),
    ("decisions", decisions::check),
];

/// Runs every check on this working tree; `Ok(true)` when no invariant is broken.
pub fn run(show_warnings: bool) -> Result<bool> {
    let started = Instant::now();
    let repo = Repo::read(&repo::root())?;
    let (mut errors, mut warnings) = (0, 0);
    for (name, check) in CHECKS {
        for finding in check(&repo) {
            let label = match finding.severity {
                Severity::Error => {
                    errors += 1;
                    "error"
                }
                Severity::Warning => {
                    warnings += 1;
                    if !show_warnings {
                        continue;
                    }
                    "warning"
                }
            };
            println!("{label}[{name}] {}: {}", finding.place, finding.message);
        }
    }
    println!(
        "tidy: {} files, {} packages, {} checks: {errors} errors, {warnings} warnings in {:.1} s{}",
        repo.files.len(),
        repo.packages.len(),
        CHECKS.len(),
        started.elapsed().as_secs_f64(),
        if warnings > 0 && !show_warnings { " (shown with --warnings)" } else { "" },
    );
    Ok(errors == 0)
}
