//! Decisions are numbered without gaps or doubles, so that "decision 7" means one page for ever.

use super::Finding;
use crate::repo::Repo;

const FOLDER: &str = "docs/decisions/";
const PARTS: &[&str] = &["context", "choice", "consequence"];

/// Finds decisions that are misnamed, misnumbered or without a part.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut numbers = Vec::new();
    for file in repo.files.iter().filter(|file| file.path.starts_with(FOLDER)) {
        let name = &file.path[FOLDER.len()..];
        let Some(number) = number_of(name) else {
            if name != "README.md" {
                findings.push(Finding::error(&file.path, "expected a name like 0007-what-was-chosen.md"));
            }
            continue;
        };
        numbers.push((number, file.path.as_str()));
        if !file.text.starts_with("# ") {
            findings.push(Finding::error(format!("{}:1", file.path), "expected the title, as `# What was chosen`"));
        }
        let text = file.text.to_lowercase();
        for part in PARTS.iter().filter(|part| !text.contains(**part)) {
            findings.push(Finding::error(
                &file.path,
                format!("a decision has context, choice and consequence; `{part}` is missing"),
            ));
        }
    }
    numbers.sort_unstable();
    for (expected, (number, path)) in (1..).zip(&numbers) {
        if *number != expected {
            findings.push(Finding::error(
                *path,
                format!("expected number {expected:04} here, found {number:04}; renumber"),
            ));
            break;
        }
    }
    findings
}

fn number_of(name: &str) -> Option<u32> {
    let (number, title) = name.strip_suffix(".md")?.split_once('-')?;
    let plain = title.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    (number.len() == 4 && plain && !title.is_empty()).then(|| number.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    const GOOD: &str = "# Title\n\nContext: a. Choice: b. Consequence: c.\n";

    #[test]
    fn gaps_doubles_names_and_missing_parts_are_found() {
        let gap = planted::files(&[("docs/decisions/0001-a.md", GOOD), ("docs/decisions/0003-b.md", GOOD)]);
        assert_eq!(check(&gap).len(), 1);
        let double = planted::files(&[("docs/decisions/0001-a.md", GOOD), ("docs/decisions/0001-b.md", GOOD)]);
        assert_eq!(check(&double).len(), 1);
        let misnamed = planted::files(&[("docs/decisions/first.md", GOOD)]);
        assert_eq!(check(&misnamed).len(), 1);
        let thin = planted::files(&[("docs/decisions/0001-a.md", "# Title\n\nContext and choice.\n")]);
        assert_eq!(check(&thin).len(), 1);
    }

    #[test]
    fn a_proper_row_passes() {
        let repo = planted::files(&[("docs/decisions/0001-a.md", GOOD), ("docs/decisions/0002-b-c.md", GOOD)]);
        assert_eq!(check(&repo), []);
    }
}
