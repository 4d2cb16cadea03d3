//! Files stay readable in one sitting: 300 lines is the aim, 800 the end.

use super::Finding;
use crate::repo::Repo;

const AIM: usize = 300;
const LIMIT: usize = 800;

/// File types that people read and write; data, locks, licences and golden files may be long.
const EXTENSIONS: &[&str] = &[".rs", ".sh", ".toml", ".md", ".py", ".js", ".html", ".css"];
const EXEMPT: &[&str] = &["CHANGELOG.md"];

/// Finds files that have grown too long.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &repo.files {
        let script = file.text.starts_with("#!");
        if !script && !EXTENSIONS.iter().any(|extension| file.path.ends_with(extension))
            || EXEMPT.contains(&file.path.as_str())
        {
            continue;
        }
        let lines = file.text.lines().count();
        if lines > LIMIT {
            findings.push(Finding::error(
                &file.path,
                format!("{lines} lines, at most {LIMIT}; split it by what it is about"),
            ));
        } else if lines > AIM && !file.path.ends_with(".md") {
            findings.push(Finding::warning(&file.path, format!("{lines} lines, aim at {AIM}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;
    use crate::tidy::Severity;

    #[test]
    fn long_files_are_found_by_kind() {
        let (long, longer) = ("x\n".repeat(AIM + 1), "x\n".repeat(LIMIT + 1));
        let script = format!("#!/bin/bash\n{longer}");
        let repo = planted::files(&[
            ("crates/a/src/long.rs", &long),
            ("crates/a/src/longer.rs", &longer),
            ("scripts/run", &script),
            ("crates/a/tests/golden.json", &longer),
        ]);
        let found: Vec<(String, Severity)> = check(&repo).into_iter().map(|f| (f.place, f.severity)).collect();
        assert_eq!(
            found,
            [
                ("crates/a/src/long.rs".to_owned(), Severity::Warning),
                ("crates/a/src/longer.rs".to_owned(), Severity::Error),
                ("scripts/run".to_owned(), Severity::Error),
            ]
        );
    }
}
