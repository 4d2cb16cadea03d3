//! `unsafe` is allowed only in crates that touch the host, and every use explains why it is sound.
//!
//! clippy's `undocumented_unsafe_blocks` sees blocks and implementations of compiled code; this sees every file.

use super::{Finding, scrub};
use crate::repo::Repo;

const ALLOWED: &[&str] = &["crates/node/", "crates/vmm/", "crates/evrocd/"];

/// How far above an `unsafe` its comment may begin: a few lines of comment and one attribute.
const COMMENT_DISTANCE: usize = 12;

/// Finds `unsafe` in the wrong crate or without its SAFETY comment.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.files.iter().filter(|file| file.path.ends_with(".rs")) {
        let source: Vec<&str> = file.text.lines().collect();
        for (number, line) in scrub::code(&file.text).lines().enumerate() {
            if !has_unsafe(line) {
                continue;
            }
            let place = format!("{}:{}", file.path, number + 1);
            if !ALLOWED.iter().any(|dir| file.path.starts_with(dir)) {
                let message =
                    "`unsafe` is allowed only in node, vmm and evrocd; find a safe wrapper or move the code there";
                findings.push(Finding::error(place, message));
                continue;
            }
            // `unsafe fn` and `unsafe extern` state a duty for the caller (`# Safety` in the docs) and do nothing themselves.
            let above = &source[number.saturating_sub(COMMENT_DISTANCE)..=number];
            if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                findings.push(Finding::error(
                    place,
                    "`unsafe` without a `// SAFETY:` comment that explains why it is sound",
                ));
            }
        }
    }
    findings
}

fn has_unsafe(line: &str) -> bool {
    line.match_indices("unsafe").any(|(at, word)| {
        let part_of_word = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part_of_word(line[..at].chars().next_back()) && !part_of_word(line[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    #[test]
    fn unsafe_in_the_wrong_crate_or_without_a_reason_is_found() {
        let repo = planted::files(&[
            ("crates/api/src/lib.rs", "// SAFETY: no\nunsafe { x() }"),
            ("crates/node/src/lib.rs", "fn f() {\n    unsafe { x() }\n}"),
        ]);
        let places: Vec<String> = check(&repo).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["crates/api/src/lib.rs:2", "crates/node/src/lib.rs:2"]);
    }

    #[test]
    fn a_reasoned_unsafe_and_the_lint_attribute_pass() {
        let repo = planted::files(&[
            (
                "crates/node/src/lib.rs",
                "#![allow(unsafe_code)]\n// SAFETY: the descriptor is ours.\nunsafe { close(fd) }",
            ),
            ("crates/api/src/lib.rs", "//! no unsafe here\nconst WORD: &str = \"unsafe\";"),
        ]);
        assert_eq!(check(&repo), []);
    }
}
