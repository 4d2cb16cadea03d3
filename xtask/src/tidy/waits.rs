//! Tests wait for a condition, never for time.
//!
//! A sleep in a test is either too short on a slow machine or too long on every other. The one sleep that is right is the pause
//! between two looks: it stands in a loop. Where the loop is not visible close by, the line contains the word `poll`.

use super::{Finding, scrub};
use crate::repo::Repo;

/// How far above the pause the loop may begin.
const LOOP_DISTANCE: usize = 12;

/// Finds sleeps in test code.
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo.files.iter().filter(|file| file.path.ends_with(".rs")) {
        let code = scrub::code(&file.text);
        let tests_from = if scrub::is_test_file(&file.path) { 0 } else { scrub::without_tests(&code).lines().count() };
        let source: Vec<&str> = file.text.lines().collect();
        for (number, line) in code.lines().enumerate().skip(tests_from) {
            let above = |distance: usize| &source[number.saturating_sub(distance)..=number];
            let says_poll = above(1).iter().any(|line| line.to_lowercase().contains("poll"));
            let in_loop = above(LOOP_DISTANCE)
                .iter()
                .any(|line| ["loop {", "while ", "for "].iter().any(|word| line.trim_start().starts_with(word)));
            if (line.contains("sleep(") || line.contains("sleep_until(")) && !says_poll && !in_loop {
                let message = "a test must wait for a condition, not for time; poll with a deadline (and say `poll` beside the pause)";
                findings.push(Finding::error(format!("{}:{}", file.path, number + 1), message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::planted;

    #[test]
    fn a_planted_pause_is_found_and_a_polling_helper_passes() {
        let pause = "thread::sle".to_owned() + "ep(SECOND);";
        let tests = format!("fn a() {{ {pause} }}\n#[cfg(test)]\nmod tests {{\n    fn b() {{ {pause} }}\n}}\n");
        let helper = format!("// Between two looks of the poll.\n{pause}\n");
        let polling = format!("loop {{\n    if ready() {{ break; }}\n    {pause}\n}}\n");
        let repo = planted::files(&[
            ("crates/a/src/lib.rs", &tests),
            ("tests/src/wait.rs", &helper),
            ("crates/a/tests/host/main.rs", &polling),
        ]);
        let places: Vec<String> = check(&repo).into_iter().map(|finding| finding.place).collect();
        assert_eq!(places, ["crates/a/src/lib.rs:4"]);
    }
}
