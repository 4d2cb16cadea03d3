//! The tables of docs/soak.md: what long runs found, and by that what need not be run again.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::repo;

/// The folder of the results.
const RESULTS: &str = "docs/soak.md";

/// Appended to the commit when the tree has changes: such a row is no result for the commit.
const CHANGED: &str = "+";

/// A table, by what its header begins with.
#[derive(Clone, Copy)]
pub enum Table {
    /// Comparisons with the original.
    Differential,
    /// Crashes of the store.
    Crashes,
    /// Fuzzing.
    Fuzzing,
}

impl Table {
    fn header(self) -> &'static str {
        match self {
            Self::Differential => "| commit | seed |",
            Self::Crashes => "| commit | crashes |",
            Self::Fuzzing => "| commit | target |",
        }
    }

    /// Adds a row: the commit and these cells.
    pub fn note(self, cells: &[String]) -> Result<()> {
        let (file, text) = read()?;
        let row = format!("| {} | {} |\n", commit()?, cells.join(" | "));
        std::fs::write(&file, with_row(&text, self.header(), &row)).with_context(|| format!("write {RESULTS}"))
    }

    /// Whether a row of this commit has these cells: the first ones, in which an empty one matches any, and the last.
    pub fn has(self, first: &[&str], last: &str) -> Result<bool> {
        Ok(has_row(&read()?.1, self.header(), &commit()?, first, last))
    }
}

fn read() -> Result<(PathBuf, String)> {
    let file = repo::root().join(RESULTS);
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {RESULTS}"))?;
    Ok((file, text))
}

/// The commit that is measured: the last one with more than documents and found inputs in it, marked if the tree has such changes.
pub fn commit() -> Result<String> {
    let git = |arguments: &[&str]| -> Result<String> {
        let mut git = Command::new("git");
        git.args(arguments).args(["--", ".", ":!*.md", ":!fuzz/corpus"]).current_dir(repo::root());
        let output = git.output().context("run git")?;
        ensure!(output.status.success(), "git {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let mut commit = git(&["log", "-1", "--format=%h", "--abbrev=10"])?;
    if !git(&["status", "--porcelain"])?.is_empty() {
        commit += CHANGED;
    }
    Ok(commit)
}

/// The document with one more row in the table that begins with `header`.
fn with_row(text: &str, header: &str, row: &str) -> String {
    let mut out = String::new();
    let mut in_table = false;
    for line in text.lines() {
        if in_table && !line.starts_with('|') {
            out.push_str(row);
            in_table = false;
        }
        in_table |= line.starts_with(header);
        out.push_str(line);
        out.push('\n');
    }
    if in_table {
        out.push_str(row);
    }
    out
}

fn has_row(text: &str, header: &str, commit: &str, first: &[&str], last: &str) -> bool {
    let table = text.lines().skip_while(|line| !line.starts_with(header)).take_while(|line| line.starts_with('|'));
    !commit.ends_with(CHANGED)
        && table.map(|line| line.trim_matches('|').split('|').map(str::trim)).any(|mut row| {
            row.next() == Some(commit)
                && first.iter().all(|wanted| row.next().is_some_and(|it| wanted.is_empty() || it == *wanted))
                && row.next_back() == Some(last)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str =
        "a\n\n| commit | seed |\n|---|---|\n| x | 1 |\n\n| commit | target |\n|---|---|\n| x | cel | 10 | 7 | ok |\n";

    #[test]
    fn a_row_goes_to_the_end_of_its_table() {
        let text = "a\n\n| commit | seed |\n|---|---|\n| x | 1 |\n\nb\n";
        assert_eq!(
            with_row(text, Table::Differential.header(), "| y | 2 |\n"),
            "a\n\n| commit | seed |\n|---|---|\n| x | 1 |\n| y | 2 |\n\nb\n"
        );
        assert!(with_row(TWO, Table::Fuzzing.header(), "| y | 2 |\n").ends_with("| ok |\n| y | 2 |\n"));
    }

    #[test]
    fn a_row_is_found_by_its_commit_and_cells() {
        let has = |table: Table, commit, first: &[&str], last| has_row(TWO, table.header(), commit, first, last);
        assert!(has(Table::Differential, "x", &[], "1"));
        assert!(has(Table::Fuzzing, "x", &["cel", "10"], "ok") && has(Table::Fuzzing, "x", &["", "10"], "ok"));
        let others =
            [("y", "cel", "10", "ok"), ("x", "body", "10", "ok"), ("x", "cel", "9", "ok"), ("x", "cel", "10", "no")];
        for (commit, target, minutes, outcome) in others {
            assert!(!has(Table::Fuzzing, commit, &[target, minutes], outcome), "{commit} {target} {minutes} {outcome}");
        }
        assert!(!has(Table::Differential, "x", &["cel", "10"], "ok"), "of another table");
        assert!(
            !has_row(&TWO.replace("| x |", "| x+ |"), "| commit | seed |", "x+", &[], "1"),
            "of a tree with changes"
        );
    }
}
