//! Parses the output of the standard test harness into counts and names.

use super::report::Tally;

/// Reads the output of one test program that ended with success or not.
///
/// A program that dies has no last line; it counts as one failure by the name given, beside the failures it had reported.
pub fn tally(program: &str, output: &str, succeeded: bool) -> Tally {
    let mut tally = Tally::default();
    let mut finished = false;
    for line in output.lines() {
        if let Some(result) = line.strip_prefix("test result: ") {
            finished = true;
            tally.passed += count_before(result, " passed").unwrap_or(0);
            tally.skipped += count_before(result, " ignored").unwrap_or(0);
        } else if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            tally.failed.push(format!("{program} {name}"));
        }
    }
    if !finished {
        tally.passed = output.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ... ok")).count();
    }
    if !succeeded && (!finished || tally.failed.is_empty()) {
        tally.failed.push(format!("{program} (did not finish)"));
    }
    tally
}

/// The tests that a program was in when it was ended: their names stand without a result.
pub fn unfinished(output: &str) -> Vec<&str> {
    let open = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" has been running for over 60 seconds"));
    open.filter(|name| !output.contains(&format!("test {name} ... "))).collect()
}

/// Returns the part of the output that explains why tests failed, or its end when there is no such part.
pub fn reasons(output: &str, lines: usize) -> String {
    let part = output.find("\nfailures:\n").map_or(output, |at| &output[at + 1..]);
    let part = part.find("\nfailures:\n    ").map_or(part, |at| &part[..at]);
    let all: Vec<&str> = part.lines().collect();
    if all.len() <= lines {
        return all.join("\n");
    }
    // The message is at the end, its cause at the beginning.
    let (head, tail) = (lines / 3, lines - lines / 3);
    let left_out = all.len() - lines;
    format!("{}\n… {left_out} lines left out …\n{}", all[..head].join("\n"), all[all.len() - tail..].join("\n"))
}

fn count_before(text: &str, word: &str) -> Option<usize> {
    text[..text.find(word)?].rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "\nrunning 3 tests\ntest a ... ok\ntest b::c ... FAILED\ntest d ... ignored\n\nfailures:\n\n---- b::c stdout ----\nboom\n\nfailures:\n    b::c\n\ntest result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn passes_and_failures_are_counted_and_named() {
        assert_eq!(tally("node", MIXED, false), Tally { passed: 1, failed: vec!["node b::c".into()], skipped: 1 });
        let fine = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n";
        assert_eq!(tally("node", fine, true), Tally { passed: 12, ..Tally::default() });
        assert!(reasons(MIXED, 10).contains("boom") && !reasons(MIXED, 10).contains("    b::c"));
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let died = "running 2 tests\ntest a ... ok\n";
        assert_eq!(
            tally("node", died, false),
            Tally { passed: 1, failed: vec!["node (did not finish)".into()], skipped: 0 }
        );
        assert_eq!(tally("node", "", false).failed.len(), 1);
    }

    #[test]
    fn the_test_that_hung_is_named() {
        let hung = "test a ... ok\ntest b has been running for over 60 seconds\ntest c has been running for over 60 seconds\ntest c ... ok\n";
        assert_eq!(unfinished(hung), ["b"]);
    }
}
