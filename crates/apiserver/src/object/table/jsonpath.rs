//! kubectl's dialect of JSONPath, the part that columns and fields use: `.a.b`, `['a.b']`, `[0]`, `[-1]`, `[*]`, `[1:3]`, `.*`,
//! `..name`, `[?(@.type=="Ready")]`, `[?(@.a)]`, `['a','b']`. Missing fields and errors give no result.

use serde_json::Value;
use std::cmp::Ordering;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    Slice { start: Option<i64>, end: Option<i64>, step: Option<i64> },
    Index(i64),
    Filter { left: Vec<Step>, comparison: Option<(Comparison, Operand)> },
    Union(Vec<Vec<Step>>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Literal(Value),
    Path(Vec<Step>),
}

/// A path that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("JSON path {path:?}: {problem}")]
pub struct PathError {
    path: String,
    problem: String,
}

impl JsonPath {
    /// Parses a path, with or without braces around it.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(inner);
        let error = |problem: String| PathError { path: text.to_string(), problem };
        let mut parser = Parser { rest: inner };
        Ok(Self { steps: parser.steps().map_err(error)? })
    }

    /// All values that it selects.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        walk(vec![root], &self.steps).unwrap_or_default()
    }
}

struct Parser<'a> {
    rest: &'a str,
}

type Parsed<T> = Result<T, String>;

fn ends_field(c: char) -> bool {
    c.is_whitespace() || ".,[]$@{}".contains(c)
}

impl<'a> Parser<'a> {
    fn eat(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn steps(&mut self) -> Parsed<Vec<Step>> {
        let mut out = Vec::new();
        loop {
            if self.rest.is_empty() {
                return Ok(out);
            } else if self.eat("[?(") {
                out.push(self.filter()?);
            } else if self.eat("..") {
                if out.last() == Some(&Step::Recursive) {
                    return Err("invalid multiple recursive descent".to_string());
                }
                out.push(Step::Recursive);
                if self.rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                    out.push(self.field());
                }
            } else if self.eat(" ") || self.eat("@") || self.eat("$") {
            } else if self.eat("[") {
                self.brackets(&mut out)?;
            } else if self.eat(".") {
                out.push(self.field());
            } else {
                let c = self.rest.chars().next().unwrap_or_default();
                return Err(format!("unexpected {c:?}"));
            }
        }
    }

    fn field(&mut self) -> Step {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((i, c)) = chars.next() {
            if c == '\\' {
                name.extend(chars.next().map(|(_, c)| c));
            } else if ends_field(c) {
                end = i;
                break;
            } else {
                name.push(c);
            }
        }
        self.rest = &self.rest[end..];
        if name == "*" { Step::Wildcard } else { Step::Field(name) }
    }

    fn brackets(&mut self, out: &mut Vec<Step>) -> Parsed<()> {
        let end = self.rest.find(']').ok_or("unterminated array")?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        if text.contains(',') {
            let parts: Parsed<Vec<Vec<Step>>> = text
                .split(',')
                .map(|part| {
                    let mut steps = Vec::new();
                    bracket(part.trim(), &mut steps)?;
                    Ok(steps)
                })
                .collect();
            out.push(Step::Union(parts?));
            return Ok(());
        }
        bracket(text, out)
    }

    fn filter(&mut self) -> Parsed<Step> {
        let end = filter_end(self.rest).ok_or("unterminated filter")?;
        let text = &self.rest[..end];
        self.rest = self.rest[end + 1..].strip_prefix(']').ok_or("unclosed array expect ]")?;
        let Some(at) = text.find(['!', '<', '>', '=']) else {
            let left = Parser { rest: text }.steps()?;
            return Ok(Step::Filter { left, comparison: None });
        };
        let operator_end =
            text[at..].find(|c: char| !"!<>=".contains(c)).map(|i| at + i).ok_or("filter without right side")?;
        let comparison = match &text[at..operator_end] {
            "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            other => return Err(format!("unrecognized filter operator {other}")),
        };
        let left = Parser { rest: text[..at].trim() }.steps()?;
        let right = text[operator_end..].trim();
        let operand = match right.chars().next() {
            Some('@' | '$' | '.') => Operand::Path(Parser { rest: right }.steps()?),
            Some(quote @ ('"' | '\'')) => {
                let inner = right[1..].strip_suffix(quote).ok_or("unterminated quoted string")?;
                Operand::Literal(Value::from(inner.replace(&format!("\\{quote}"), &quote.to_string())))
            }
            _ => Operand::Literal(match right {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                number => serde_json::from_str::<serde_json::Number>(number)
                    .map(Value::Number)
                    .map_err(|_| format!("unexpected {number:?}"))?,
            }),
        };
        Ok(Step::Filter { left, comparison: Some((comparison, operand)) })
    }
}

/// Returns the position of the filter's closing parenthesis, outside quotes.
fn filter_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, ')') => return Some(i),
            _ => {}
        }
    }
    None
}

fn bracket(text: &str, out: &mut Vec<Step>) -> Parsed<()> {
    if text == "*" {
        out.push(Step::Slice { start: None, end: None, step: None });
        return Ok(());
    }
    for quote in ['\'', '"'] {
        if let Some(name) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            out.push(Step::Field(name.replace('\\', "")));
            return Ok(());
        }
    }
    let number = |part: &str| -> Parsed<Option<i64>> {
        match part {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|_| format!("invalid array index {text}")),
        }
    };
    let parts: Vec<&str> = text.split(':').collect();
    out.push(match parts.as_slice() {
        [index] => Step::Index(number(index)?.ok_or_else(|| format!("invalid array index {text}"))?),
        [start, end] => Step::Slice { start: number(start)?, end: number(end)?, step: None },
        [start, end, step] => Step::Slice { start: number(start)?, end: number(end)?, step: number(step)? },
        _ => return Err(format!("invalid array index {text}")),
    });
    Ok(())
}

/// Returns `None` if the path does not fit the value, which prints like a missing value.
fn walk<'a>(mut values: Vec<&'a Value>, steps: &[Step]) -> Option<Vec<&'a Value>> {
    for step in steps {
        let mut next = Vec::new();
        for value in &values {
            apply(value, step, &mut next)?;
        }
        values = next;
    }
    Some(values)
}

fn apply<'a>(value: &'a Value, step: &Step, out: &mut Vec<&'a Value>) -> Option<()> {
    match step {
        Step::Field(name) => out.extend(value.get(name.as_str())),
        Step::Wildcard => children(value, out),
        Step::Recursive => descend(value, out),
        Step::Index(index) => {
            if !value.is_null() {
                let items = value.as_array()?;
                let index = if *index < 0 { index + items.len() as i64 } else { *index };
                out.push(items.get(usize::try_from(index).ok()?)?);
            }
        }
        Step::Slice { start, end, step } => {
            if !value.is_null() {
                let items = value.as_array()?;
                let length = items.len() as i64;
                let from_end = |i: i64| if i < 0 { i + length } else { i };
                let start = usize::try_from(from_end(start.unwrap_or(0))).ok()?;
                let end = usize::try_from(from_end(end.unwrap_or(length))).ok()?;
                let step = usize::try_from(step.unwrap_or(1)).ok()?.max(1);
                if start != end {
                    out.extend(items.get(start..end)?.iter().step_by(step));
                }
            }
        }
        Step::Filter { left, comparison } => {
            for item in value.as_array()? {
                if holds(item, left, comparison.as_ref())? {
                    out.push(item);
                }
            }
        }
        Step::Union(parts) => {
            for steps in parts {
                out.extend(walk(vec![value], steps)?);
            }
        }
    }
    Some(())
}

fn children<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => out.extend(map.values()),
        Value::Array(items) => out.extend(items),
        _ => {}
    }
}

fn descend<'a>(value: &'a Value, out: &mut Vec<&'a Value>) {
    let mut below = Vec::new();
    children(value, &mut below);
    if !below.is_empty() {
        out.push(value);
        below.into_iter().for_each(|child| descend(child, out));
    }
}

fn holds(item: &Value, left: &[Step], comparison: Option<&(Comparison, Operand)>) -> Option<bool> {
    let found = walk(vec![item], left);
    let Some((comparison, operand)) = comparison else {
        return Some(found.is_some_and(|f| !f.is_empty()));
    };
    // Kubernetes gives up on the whole filter where a side is missing.
    let found = found?;
    let [left] = found.as_slice() else { return None };
    let right = match operand {
        Operand::Literal(value) => value,
        Operand::Path(steps) => match walk(vec![item], steps)?.as_slice() {
            [one] => *one,
            _ => return None,
        },
    };
    let order = match (*left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?)?,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) if a == b => Ordering::Equal,
        (Value::Bool(_), Value::Bool(_)) if matches!(comparison, Comparison::Equal | Comparison::NotEqual) => {
            return Some(*comparison == Comparison::NotEqual);
        }
        _ => return None,
    };
    Some(match comparison {
        Comparison::Equal => order == Ordering::Equal,
        Comparison::NotEqual => order != Ordering::Equal,
        Comparison::Less => order == Ordering::Less,
        Comparison::LessOrEqual => order != Ordering::Greater,
        Comparison::Greater => order == Ordering::Greater,
        Comparison::GreaterOrEqual => order != Ordering::Less,
    })
}
