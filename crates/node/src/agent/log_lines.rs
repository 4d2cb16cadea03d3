//! Puts the entries of containers' logs together to lines, and lines of several containers in order.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::shim::parse_cri_line;

/// The longest line that is kept together, in bytes; a longer one is cut. Higher costs memory for each container that writes no line ends.
const MAX_LINE: usize = 1 << 20;

/// The selection of lines, and their format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Form {
    /// Only lines that were begun at this time or later.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
}

/// A line of a container, or an entry that is none.
#[derive(Debug)]
pub(super) struct Line {
    /// The time of its first entry as the log has it. All are of the same form, so the order of the texts is that of the times.
    key: Vec<u8>,
    time: Option<Timestamp>,
    text: Vec<u8>,
}

/// The lines of one container. A line that is not written to its end waits for its next entry, in each stream of its own.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: BTreeMap<String, Line>,
}

impl Lines {
    /// Adds whole entries, and gives the lines that they end.
    pub(super) fn add(&mut self, entries: &[u8], lines: &mut Vec<Line>) {
        for entry in entries.split(|byte| *byte == b'\n').filter(|entry| !entry.is_empty()) {
            let key = entry.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
            let Some(parsed) = parse_cri_line(entry) else {
                lines.push(Line { key, time: None, text: entry.to_vec() });
                continue;
            };
            let new = || Line { key, time: Some(parsed.time), text: Vec::new() };
            let mut line = self.begun.remove(parsed.stream).unwrap_or_else(new);
            line.text.extend(parsed.text);
            if parsed.is_partial && line.text.len() < MAX_LINE {
                self.begun.insert(parsed.stream.to_owned(), line);
            } else {
                lines.push(line);
            }
        }
    }

    /// Returns an incomplete last line: no more input will come.
    pub(super) fn finish(&mut self, lines: &mut Vec<Line>) {
        lines.extend(std::mem::take(&mut self.begun).into_values());
    }
}

/// Writes lines of several containers in the order in which they were begun.
pub(super) fn render(mut lines: Vec<Line>, form: Form) -> Vec<u8> {
    lines.sort_by(|a, b| a.key.cmp(&b.key));
    let mut text = Vec::new();
    for line in lines {
        if let (Some(since), Some(time)) = (form.since, line.time)
            && time < since
        {
            continue;
        }
        if let (true, Some(time)) = (form.timestamps, line.time) {
            text.extend(format!("{time:.9} ").into_bytes());
        }
        text.extend(line.text);
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(second: u8, stream: &str, kind: char, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000000Z {stream} {kind} {text}\n")
    }

    fn text(logs: &[String], form: Form) -> String {
        let mut lines = Vec::new();
        for log in logs {
            let mut container = Lines::default();
            container.add(log.as_bytes(), &mut lines);
            container.finish(&mut lines);
        }
        String::from_utf8(render(lines, form)).unwrap()
    }

    #[test]
    fn lines_of_two_containers_are_not_mixed() {
        let a = entry(1, "stdout", 'P', "be") + &entry(4, "stdout", 'F', "gun");
        let b = entry(2, "stdout", 'F', "between") + &entry(5, "stdout", 'F', "after");
        assert_eq!(text(&[a, b], Form::default()), "begun\nbetween\nafter\n");
    }

    #[test]
    fn streams_of_one_container_are_not_mixed() {
        let log = entry(1, "stdout", 'P', "o") + &entry(2, "stderr", 'F', "e") + &entry(3, "stdout", 'F', "ut");
        assert_eq!(text(&[log], Form::default()), "out\ne\n");
    }

    #[test]
    fn a_line_waits_for_its_end_over_several_reads() {
        let (mut container, mut lines) = (Lines::default(), Vec::new());
        container.add(entry(1, "stdout", 'P', "a").as_bytes(), &mut lines);
        assert!(lines.is_empty());
        container.add(entry(2, "stdout", 'F', "b").as_bytes(), &mut lines);
        assert_eq!(render(lines, Form::default()), b"ab\n");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let (mut container, mut lines) = (Lines::default(), Vec::new());
        let piece = "x".repeat(64 << 10);
        for _ in 0..40 {
            container.add(entry(1, "stdout", 'P', &piece).as_bytes(), &mut lines);
        }
        container.finish(&mut lines);
        assert!(lines.len() > 1 && lines.iter().all(|line| line.text.len() < MAX_LINE + (65 << 10)));
    }

    #[test]
    fn a_reader_that_was_cut_off_asks_for_what_came_after() {
        let log = entry(1, "stdout", 'F', "a") + &entry(2, "stdout", 'P', "b") + &entry(3, "stdout", 'F', "c");
        let form = Form { since: Some("2026-01-01T00:00:02Z".parse().unwrap()), timestamps: true };
        assert_eq!(text(&[log], form), "2026-01-01T00:00:02.000000000Z bc\n");
    }
}
