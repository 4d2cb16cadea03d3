//! Differences that are meant: docs/conformance.md lists each by the name that stands here.

use serde_json::Value;

use super::run::whole;
use super::{Seen, Sequence, explain};

/// The name of the reason for which a step is answered differently, if all that differs in it has that reason.
///
/// What is shared between a request and those after it is judged at the first step that differs: later ones follow from it.
pub fn explained(sequence: &Sequence, step: usize, ours: &Seen, original: &Seen) -> Option<&'static str> {
    let request = sequence.steps.get(step)?;
    let differs = explain(&whole(ours), &whole(original));
    if request.media_type.contains("merge-patch") && request.body.as_ref().is_some_and(Value::is_array) {
        return Some("list-as-merge-patch").filter(|_| ours.code >= 400 && original.code >= 400);
    }
    let scaled = sequence.steps[..=step].iter().any(|it| it.path.contains("/scale") && it.method != "GET");
    // A watch is opened before what it sees.
    let scaled = scaled || (request.method == "WATCH" && sequence.steps.iter().any(|it| it.path.contains("/scale")));
    let is_about_scale =
        |seen: &Seen| seen.body["message"].as_str().is_some_and(|it| it.contains("subresource \"scale\""));
    if scaled && is_about_scale(ours) {
        return Some("scale-has-a-manager");
    }
    let reason_for = |line: &str| {
        let is_token = line.starts_with(".body.metadata.continue: ") && line.ends_with(" | \"token\"");
        match line {
            _ if is_token && !line.contains("\"token\" |") && request.path.contains("elector=") => {
                Some("no-empty-last-page")
            }
            _ if line.ends_with(".time: \"time\" | null") => Some("time-lost-on-the-way"),
            _ if line.ends_with(".selfLink: null | \"/x\"") => Some("no-self-link"),
            _ if scaled && (line.contains("managedFields") || line.contains(".resourceVersion: ")) => {
                Some("scale-has-a-manager")
            }
            _ if request.media_type.contains("apply-patch") && line.starts_with(".body.metadata.resourceVersion: ") => {
                Some("apply-of-nothing")
            }
            _ => None,
        }
    };
    let reasons: Option<Vec<&'static str>> = differs.iter().map(|line| reason_for(line)).collect();
    reasons?.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differential::generate::sequence;
    use serde_json::json;

    #[test]
    fn only_what_is_meant_is_explained() {
        let seen = |body| Seen { code: 200, warnings: vec![], media_type: String::new(), body };
        let mut one = sequence(1);
        one.steps.truncate(1);
        one.steps[0].path = "/x?labelSelector=a&limit=1".into();
        let (ours, original) =
            (seen(json!({"metadata": {"continue": ""}})), seen(json!({"metadata": {"continue": "token"}})));
        assert_eq!(explained(&one, 0, &ours, &original), Some("no-empty-last-page"));
        let more = seen(json!({"metadata": {"continue": "token"}, "items": [1]}));
        assert_eq!(explained(&one, 0, &ours, &more), None);
        one.steps[0].path = "/x?limit=1".into();
        assert_eq!(explained(&one, 0, &ours, &original), None);
    }
}
