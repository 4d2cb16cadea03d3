//! `labelSelector`: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.

use super::SelectorError;
use super::lexer::{Token, tokens};
use crate::object::field_error::FieldError;
use crate::object::meta_validate::names;
use serde_json::Value;
use std::collections::BTreeSet;

/// How a key and its values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// The values it is compared with, sorted; none for the existence operators.
    pub values: Vec<String>,
}

/// A parsed `labelSelector`: all requirements must hold. Sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Parses a selector. Empty selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { tokens: tokens(text), position: 0 };
        let mut requirements = parser.selector()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// The conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Returns the labels that must have one value, with that value: hints for an index.
    pub fn exact_values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements.iter().filter_map(|requirement| match (requirement.operator, requirement.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some((&*requirement.key, &**value)),
            _ => None,
        })
    }

    /// Whether the selector matches an object whose labels have these values (`None`: no such label).
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(value_of(&requirement.key)))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let among = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(among),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(among),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let limit = self.values.first().and_then(|v| v.parse::<i64>().ok());
                let value = value.and_then(|v| v.parse::<i64>().ok());
                match (value, limit) {
                    (Some(value), Some(limit)) if self.operator == Operator::GreaterThan => value > limit,
                    (Some(value), Some(limit)) => value < limit,
                    _ => false,
                }
            }
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = self.values.join(",");
        match self.operator {
            Operator::Equals => write!(f, "{}={values}", self.key),
            Operator::DoubleEquals => write!(f, "{}=={values}", self.key),
            Operator::NotEquals => write!(f, "{}!={values}", self.key),
            Operator::In => write!(f, "{} in ({values})", self.key),
            Operator::NotIn => write!(f, "{} notin ({values})", self.key),
            Operator::Exists => write!(f, "{}", self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{values}", self.key),
            Operator::LessThan => write!(f, "{}<{values}", self.key),
        }
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

fn error<T>(text: String) -> Result<T, SelectorError> {
    Err(SelectorError(text))
}

/// Treats `in` and `notin` as words where a key or value is expected.
fn as_word(token: Token) -> Token {
    match token {
        Token::In | Token::NotIn => Token::Word,
        other => other,
    }
}

impl Parser {
    fn peek(&self) -> (Token, &str) {
        let (token, text) = &self.tokens[self.position.min(self.tokens.len() - 1)];
        (as_word(*token), text)
    }

    fn take_raw(&mut self) -> (Token, String) {
        let out = self.tokens[self.position.min(self.tokens.len() - 1)].clone();
        self.position += 1;
        out
    }

    fn take(&mut self) -> (Token, String) {
        let (token, text) = self.take_raw();
        (as_word(token), text)
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                (Token::Word | Token::Not, _) => {
                    let requirement =
                        self.requirement().map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
                    out.push(requirement);
                    match self.take() {
                        (Token::End, _) => return Ok(out),
                        (Token::Comma, _) => {
                            let (next, text) = self.peek();
                            if !matches!(next, Token::Word | Token::Not) {
                                return error(format!("found '{text}', expected: identifier after ','"));
                            }
                        }
                        (_, text) => return error(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(out),
                (_, text) => return error(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.take();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take();
        }
        if token != Token::Word {
            return error(format!("found '{key}', expected: identifier"));
        }
        let problems = names::label_key(&key);
        if !problems.is_empty() {
            return error(FieldError::invalid("<nil>", Value::from(key), problems.join("; ")).to_string());
        }
        if negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() });
        }
        let operator = match self.take_raw() {
            (Token::In, _) => Operator::In,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::NotEquals, _) => Operator::NotEquals,
            (Token::Greater, _) => Operator::GreaterThan,
            (Token::Less, _) => Operator::LessThan,
            (_, text) => return error(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => BTreeSet::from([self.exact_value()?]),
        };
        check_values(&key, operator, &values)?;
        Ok(Requirement { key, operator, values: values.into_iter().collect() })
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.take() {
            (Token::Word, text) => Ok(text),
            (_, text) => error(format!("found '{text}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let (token, text) = self.take();
        if token != Token::Open {
            return error(format!("found '{text}' expected: '('"));
        }
        let (token, first) = self.peek();
        let first = first.to_string();
        match token {
            Token::Word | Token::Comma => {
                let values = self.value_list()?;
                match self.take().0 {
                    Token::Close => Ok(values),
                    _ => error(format!("found '{first}', expected: ')'")),
                }
            }
            Token::Close => {
                self.take();
                Ok(BTreeSet::from([String::new()]))
            }
            _ => error(format!("found '{first}', expected: ',', ')' or identifier")),
        }
    }

    /// Reads words separated by commas; a missing word is the empty value.
    fn value_list(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut out = BTreeSet::new();
        loop {
            match self.take() {
                (Token::Word, text) => {
                    out.insert(text);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(out),
                        (_, text) => return error(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if out.is_empty() {
                        out.insert(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            out.insert(String::new());
                            return Ok(out);
                        }
                        Token::Comma => {
                            out.insert(String::new());
                        }
                        _ => {}
                    }
                }
                (_, text) => return error(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }
}

fn check_values(key: &str, operator: Operator, values: &BTreeSet<String>) -> Result<(), SelectorError> {
    let mut errors = Vec::new();
    if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
        for (i, value) in values.iter().enumerate() {
            if value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(format!("values[{i}]"), Value::from(value.as_str()), detail));
            }
        }
    }
    for (i, value) in values.iter().enumerate() {
        let problems = names::label_value(value);
        if !problems.is_empty() {
            let path = format!("values[{i}][{key}]");
            errors.push(FieldError::invalid(path, Value::from(value.as_str()), problems.join("; ")));
        }
    }
    if errors.is_empty() { Ok(()) } else { error(crate::object::schema::status::aggregate(&errors)) }
}
