//! Makes a failing sequence small: fewer steps, then smaller bodies.

use std::future::Future;

use anyhow::Result;
use serde_json::Value;

use super::Sequence;

/// The smallest sequence found for which `fails` still holds; `fails` must hold for the one given.
///
/// # Errors
/// If `fails` cannot tell.
pub async fn shrink<F, T>(mut sequence: Sequence, mut fails: F) -> Result<Sequence>
where
    F: FnMut(Sequence) -> T,
    T: Future<Output = Result<bool>>,
{
    // Halves first, then single steps: most steps have nothing to do with it.
    let mut size = sequence.steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < sequence.steps.len() {
            let mut smaller = sequence.clone();
            smaller.steps.drain(at..(at + size).min(sequence.steps.len()));
            if !smaller.steps.is_empty() && fails(smaller.clone()).await? {
                sequence = smaller;
            } else {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    for index in 0..sequence.steps.len() {
        let mut tried = 0;
        while let Some(smaller) = sequence.steps[index].body.as_ref().and_then(|body| without_nth(body, tried)) {
            let mut candidate = sequence.clone();
            candidate.steps[index].body = Some(smaller);
            if fails(candidate.clone()).await? {
                sequence = candidate;
            } else {
                tried += 1;
            }
        }
        while let Some((path, query)) = sequence.steps[index].path.clone().split_once('?') {
            let mut candidate = None;
            for (position, _) in query.split('&').enumerate() {
                let rest: Vec<&str> =
                    query.split('&').enumerate().filter(|it| it.0 != position).map(|it| it.1).collect();
                let mut smaller = sequence.clone();
                smaller.steps[index].path =
                    if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
                if fails(smaller.clone()).await? {
                    candidate = Some(smaller);
                    break;
                }
            }
            match candidate {
                Some(smaller) => sequence = smaller,
                None => break,
            }
        }
    }
    Ok(sequence)
}

/// The document without its nth member or element, counted through all depths.
fn without_nth(value: &Value, nth: usize) -> Option<Value> {
    let mut left = nth;
    let mut copy = value.clone();
    remove(&mut copy, &mut left).then_some(copy)
}

fn remove(value: &mut Value, left: &mut usize) -> bool {
    match value {
        Value::Object(map) => {
            for key in map.keys().cloned().collect::<Vec<_>>() {
                if *left == 0 {
                    map.shift_remove(&key);
                    return true;
                }
                *left -= 1;
                if map.get_mut(&key).is_some_and(|value| remove(value, left)) {
                    return true;
                }
            }
            false
        }
        Value::Array(items) => {
            for index in 0..items.len() {
                if *left == 0 {
                    items.remove(index);
                    return true;
                }
                *left -= 1;
                if remove(&mut items[index], left) {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differential::Step;
    use serde_json::json;

    #[tokio::test]
    async fn essential_fields_remain() {
        let step = |path: &str, body: Value| Step {
            method: "POST".into(),
            path: path.into(),
            media_type: String::new(),
            accept: String::new(),
            body: Some(body),
            text: None,
        };
        let mut steps: Vec<Step> = (0..20).map(|n| step(&format!("/{n}"), json!({}))).collect();
        steps[13] = step("/bad?x=1&y=2", json!({"a": {"b": [1, 2, 3]}, "c": 4}));
        let is_bad = |it: &Step| {
            it.path.contains("y=2")
                && it.body.as_ref().is_some_and(|body| body["a"]["b"][0] == 1 || body["a"]["b"][1] == 1)
        };
        let shrunk = shrink(Sequence { steps }, |it| {
            let fails = it.steps.iter().any(is_bad);
            async move { Ok(fails) }
        });
        assert_eq!(shrunk.await.unwrap().steps, [step("/bad?y=2", json!({"a": {"b": [1]}}))]);
    }
}
