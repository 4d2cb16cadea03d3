//! Reads OpenMetrics text, strictly: what Prometheus could take in another way than it is meant is refused.

use std::collections::{BTreeMap, HashSet};

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name, with its suffix (`_total`, `_bucket`).
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// The line that is not OpenMetrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Its number, from 1.
    pub line: usize,
    /// The expectation.
    pub expected: &'static str,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "line {} of the metrics: expected {}", self.line, self.expected)
    }
}

impl std::error::Error for ReadError {}

/// The family whose values are being read.
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    /// The last bucket of a histogram: its labels without the bound, and the count.
    bucket: Option<(BTreeMap<String, String>, f64)>,
}

/// Reads all values of a text.
///
/// # Errors
/// If a line is not as OpenMetrics 1.0 has it.
pub fn read(text: &str) -> Result<Vec<Sample>, ReadError> {
    let mut samples = Vec::new();
    let mut families = HashSet::new();
    let mut seen = HashSet::new();
    let mut family: Option<Family<'_>> = None;
    let mut is_over = false;
    let mut number = 0;
    for line in text.lines() {
        number += 1;
        let expected = |expected| ReadError { line: number, expected };
        if is_over {
            return Err(expected("nothing after # EOF"));
        }
        if line == "# EOF" {
            is_over = true;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| expected("a name and a type"))?;
            if !is_name(name) || !matches!(kind, "counter" | "gauge" | "histogram" | "info" | "unknown") {
                return Err(expected("a name and a type"));
            }
            if !families.insert(name) {
                return Err(expected("a family that was not there before"));
            }
            family = Some(Family { name, kind, bucket: None });
        } else if line.starts_with("# HELP ") || line.starts_with("# UNIT ") {
        } else {
            let sample = sample(line).map_err(expected)?;
            let family = family.as_mut().ok_or_else(|| expected("# TYPE before a value"))?;
            family.check(&sample).map_err(expected)?;
            if !seen.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(expected("a series that was not there before"));
            }
            samples.push(sample);
        }
    }
    match is_over {
        true => Ok(samples),
        false => Err(ReadError { line: number + 1, expected: "# EOF" }),
    }
}

impl Family<'_> {
    fn check(&mut self, sample: &Sample) -> Result<(), &'static str> {
        let suffix = sample.name.strip_prefix(self.name).ok_or("a value of the family above")?;
        let is_right = match self.kind {
            "counter" => matches!(suffix, "_total" | "_created"),
            "histogram" => matches!(suffix, "_bucket" | "_count" | "_sum" | "_created"),
            "info" => suffix == "_info",
            _ => suffix.is_empty(),
        };
        if !is_right {
            return Err("a suffix that belongs to the type");
        }
        if matches!(self.kind, "counter" | "histogram") && (sample.value < 0.0 || sample.value.is_nan()) {
            return Err("a count of 0 or more");
        }
        if suffix == "_bucket" {
            let mut labels = sample.labels.clone();
            labels.remove("le").ok_or("a bucket with its bound")?;
            if self.bucket.as_ref().is_some_and(|(same, below)| *same == labels && sample.value < *below) {
                return Err("a bucket that holds those below it");
            }
            self.bucket = Some((labels, sample.value));
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(is_start) && name.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

fn sample(line: &str) -> Result<Sample, &'static str> {
    let end = line.find(['{', ' ']).ok_or("a name and a value")?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return Err("a name");
    }
    let mut labels = BTreeMap::new();
    let rest = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest, &mut labels)?,
        None => rest,
    };
    let value = rest.strip_prefix(' ').ok_or("a space before the value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        value => value.parse().map_err(|_| "a number")?,
    };
    Ok(Sample { name: name.into(), labels, value })
}

/// Reads labels up to the closing brace; returns the rest of the line.
fn read_labels<'a>(mut rest: &'a str, labels: &mut BTreeMap<String, String>) -> Result<&'a str, &'static str> {
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok(rest);
        }
        let (name, value) = rest.split_once("=\"").ok_or("a label")?;
        if !is_name(name) {
            return Err("a label's name");
        }
        let mut text = String::new();
        let mut characters = value.char_indices();
        let end = loop {
            match characters.next().ok_or("the end of a label's value")? {
                (at, '"') => break at,
                (_, '\\') => text.push(match characters.next().ok_or("an escaped character")?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => text.push(other),
            }
        };
        if labels.insert(name.into(), text).is_some() {
            return Err("each label once");
        }
        rest = &value[end + 1..];
        rest = match rest.strip_prefix(',') {
            Some(next) if !next.starts_with('}') => next,
            Some(_) => return Err("a label after the comma"),
            None if rest.starts_with('}') => rest,
            None => return Err("a comma or a brace"),
        };
    }
}
