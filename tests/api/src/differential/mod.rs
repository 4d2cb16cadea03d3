//! The same sequences of requests to two servers, and every difference between their answers.
//!
//! A [`Sequence`] is a list of steps in a namespace of its own. What differs by nature (uids, times, revisions, tokens) is replaced by
//! names that say no more than equality and order ([`normal`]). [`generate`] makes sequences from a seed, [`play`] sends one to a
//! server, [`shrink`] makes a failing one small, [`run`] does it 20,000 times and can be taken up again where it was ended.

mod bodies;
pub mod explained;
mod gadgets;
pub mod generate;
pub mod normal;
pub mod play;
pub mod run;
pub mod shrink;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One request. In paths and bodies stand, for what only the server knows: `@ns` the namespace, `@rv(NAME)` and `@uid(NAME)` of
/// the object last seen with that name, `@rv(list)` and `@continue` of the list last seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `GET`, `POST`, …, or `WATCH`: a stream that is opened here and read at the end.
    pub method: String,
    /// With its query.
    pub path: String,
    /// The body's media type.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The accepted media type; JSON where it is empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub accept: String,
    /// A JSON body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// A body that is not JSON, or not JSON that survives being read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Steps that depend on nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    /// In the order in which they are sent.
    pub steps: Vec<Step>,
}

/// The answer of a server to one step, normalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The status code.
    pub code: u16,
    /// `Warning` headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The body's media type.
    #[serde(rename = "type")]
    pub media_type: String,
    /// The body; of a watch, the list of its events.
    pub body: Value,
}

/// A sequence with the original's answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The subject, in a few words.
    pub about: String,
    /// The requests.
    pub steps: Vec<Step>,
    /// The answers of the original, one entry a step.
    pub answers: Vec<Seen>,
}

/// The first step that was answered differently, and how.
pub fn difference(ours: &[Seen], original: &[Seen]) -> Option<usize> {
    if ours.len() != original.len() {
        return Some(ours.len().min(original.len()));
    }
    ours.iter().zip(original).position(|(one, other)| one != other)
}

/// The places where two documents differ, `path: ours | original`, ten at most.
pub fn explain(ours: &Value, original: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk("", ours, original, &mut found);
    found.truncate(10);
    found
}

fn walk(path: &str, ours: &Value, original: &Value, found: &mut Vec<String>) {
    match (ours, original) {
        (Value::Object(one), Value::Object(other)) => {
            for (key, value) in one {
                walk(&format!("{path}.{key}"), value, other.get(key).unwrap_or(&Value::Null), found);
            }
            for (key, value) in other.iter().filter(|(key, _)| !one.contains_key(*key)) {
                walk(&format!("{path}.{key}"), &Value::Null, value, found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                walk(&format!("{path}[{index}]"), one, other, found);
            }
        }
        _ if ours != original => found.push(format!("{path}: {ours} | {original}")),
        _ => {}
    }
}
