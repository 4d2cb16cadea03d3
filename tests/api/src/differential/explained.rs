//! Differences that are meant: docs/conformance.md lists each by the name that stands here.

use serde_json::Value;

use super::run::whole;
use super::{Seen, Sequence, explain};

/// The name of the reason for which a step is answered differently, if all that differs in it has that reason.
///
/// State that a request shares with those after it is judged at the first step that differs: later ones follow from it.
pub fn explained(sequence: &Sequence, step: usize, all_ours: &[Seen], all_original: &[Seen]) -> Option<&'static str> {
    let request = sequence.steps.get(step)?;
    let (ours, original) = (all_ours.get(step)?, all_original.get(step)?);
    let differs = explain(&whole(ours), &whole(original));
    if request.media_type.contains("merge-patch") && request.body.as_ref().is_some_and(Value::is_array) {
        return Some("list-as-merge-patch").filter(|_| ours.code >= 400 && original.code >= 400);
    }
    if has_rules_of_another_kind(ours, original) {
        return Some("rules-of-another-kind");
    }
    let scaled = sequence.steps[..=step].iter().any(|it| it.path.contains("/scale") && it.method != "GET");
    // A watch is opened before the changes that it sees.
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
            _ if scaled && line.ends_with(".time: \"time\" | null") && is_of_scale(original, line) => {
                Some("scale-has-no-time")
            }
            _ if line.ends_with(".selfLink: null | \"/x\"") => Some("no-self-link"),
            _ if line.starts_with(".warnings: [] | ")
                && is_of_a_deleted_object(sequence, step, all_ours, all_original) =>
            {
                Some("warned-of-what-is-gone")
            }
            _ if scaled && (line.contains("managedFields") || line.contains(".resourceVersion: ")) => {
                Some("scale-has-a-manager")
            }
            _ if request.media_type.contains("apply-patch")
                && line.starts_with(".body.metadata.resourceVersion: ")
                && is_of_nothing(&all_original[..=step]) =>
            {
                Some("managers-change-places")
            }
            _ => None,
        }
    };
    let reasons: Option<Vec<&'static str>> = differs.iter().map(|line| reason_for(line)).collect();
    reasons?.first().copied()
}

/// Whether a line is about an entry of `managedFields` that a write through `scale` has made.
fn is_of_scale(original: &Seen, line: &str) -> bool {
    let Some((path, _)) = line.split_once(".time: ") else { return false };
    let pointer = path.replace(".body", "").replace(['.', '['], "/").replace(']', "");
    original.body.pointer(&pointer).is_some_and(|entry| entry["subresource"] == "scale" && entry["manager"].is_string())
}

/// Whether the last of these answers shows the object as an earlier one has shown it, but for its revision, with two managers of one
/// operation. The original orders managers by the second of their last write: a repeated apply of the same values, and a status that is put
/// back, gets a new second and thereby, now and then, another place, which is a new revision without a visible change.
fn is_of_nothing(original: &[Seen]) -> bool {
    let without_revision = |seen: &Seen| {
        let mut body = seen.body.clone();
        body["metadata"]["resourceVersion"] = Value::Null;
        body
    };
    let Some((last, before)) = original.split_last() else { return false };
    let uid = &last.body["metadata"]["uid"];
    let Some(then) = before.iter().rev().find(|it| it.body["metadata"]["uid"] == *uid) else { return false };
    let managers = last.body["metadata"]["managedFields"].as_array();
    let count = |operation: &str| managers.into_iter().flatten().filter(|it| it["operation"] == operation).count();
    uid.is_string()
        && last.code == 200
        && (count("Apply") > 1 || count("Update") > 1)
        && without_revision(last) == without_revision(then)
}

/// Whether a patch found nothing on both servers right after a delete. The original patches what its cache still has, warns of what it sees
/// there, and then finds in etcd that the object is deleted.
fn is_of_a_deleted_object(sequence: &Sequence, step: usize, ours: &[Seen], original: &[Seen]) -> bool {
    let Some(before) = step.checked_sub(1) else { return false };
    sequence.steps[step].method == "PATCH"
        && (ours[step].code, original[step].code) == (404, 404)
        && sequence.steps[before].method == "DELETE"
        && original[before].code == 200
}

/// An object of another kind is refused, and its rules are asked nevertheless, of values that no schema has looked at: Go's conversions
/// of those fail in Go's words. What else is refused must be the same.
fn has_rules_of_another_kind(ours: &Seen, original: &Seen) -> bool {
    let causes = |seen: &Seen| seen.body["details"]["causes"].as_array().cloned().unwrap_or_default();
    let text = |cause: &Value| cause["message"].as_str().unwrap_or_default().to_owned();
    let is_of_go = |cause: &Value| {
        let text = text(cause);
        text.contains(": internal error: interface conversion: ") || text.contains(": invalid data, expected ")
    };
    let (one, other) = (causes(ours), causes(original));
    let is_kind = |cause: &Value| cause["field"] == "kind" && text(cause).contains("\": must be ");
    let without_rules = |all: &[Value]| -> Vec<Value> {
        all.iter().filter(|it| !text(it).contains(" evaluating rule: ")).cloned().collect()
    };
    (ours.code, original.code) == (422, 422)
        && other.iter().any(is_kind)
        && other.iter().any(is_of_go)
        && without_rules(&one) == without_rules(&other)
        && ours.warnings == original.warnings
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
        let explained = |sequence: &Sequence, ours: &Seen, original: &Seen| {
            super::explained(sequence, 0, std::slice::from_ref(ours), std::slice::from_ref(original))
        };
        assert_eq!(explained(&one, &ours, &original), Some("no-empty-last-page"));
        let more = seen(json!({"metadata": {"continue": "token"}, "items": [1]}));
        assert_eq!(explained(&one, &ours, &more), None);
        one.steps[0].path = "/x?limit=1".into();
        assert_eq!(explained(&one, &ours, &original), None);

        let refused = |causes: &[(&str, &str)]| Seen {
            code: 422,
            body: json!({"details": {"causes": causes.iter().map(|it| json!({"field": it.0, "message": it.1})).collect::<Vec<_>>()}}),
            ..ours.clone()
        };
        let kind = ("kind", "Invalid value: \"Other\": must be Disk");
        let rule = ("spec", "Invalid value: \"object\": no such key: order evaluating rule: x");
        let of_go = ("spec", "Invalid value: \"object\": invalid data, expected string, got int64 evaluating rule: x");
        let name = |ours: &[_], original: &[_]| explained(&one, &refused(ours), &refused(original));
        assert_eq!(name(&[kind, rule], &[kind, of_go]), Some("rules-of-another-kind"));
        assert_eq!(name(&[kind, rule], &[kind]), None, "a rule that only ours finds broken");
        assert_eq!(name(&[rule], &[of_go]), None, "of its own kind");
        assert_eq!(name(&[rule], &[kind, of_go]), None, "the kind is to be refused");
    }

    #[test]
    fn a_warning_is_explained_only_of_what_was_just_deleted() {
        let seen = |code, warnings: &[&str]| Seen {
            code,
            warnings: warnings.iter().map(|it| (*it).to_owned()).collect(),
            media_type: String::new(),
            body: json!({}),
        };
        let name = |methods: [&str; 2], code, ours: &[&str], original: &[&str]| {
            let mut two = sequence(1);
            two.steps.truncate(2);
            for (step, method) in two.steps.iter_mut().zip(methods) {
                (step.method, step.media_type, step.path) = (method.into(), String::new(), "/x".into());
            }
            explained(&two, 1, &[seen(200, &[]), seen(code, ours)], &[seen(200, &[]), seen(code, original)])
        };
        assert_eq!(name(["DELETE", "PATCH"], 404, &[], &["a"]), Some("warned-of-what-is-gone"));
        assert_eq!(name(["DELETE", "PATCH"], 200, &[], &["a"]), None, "it exists");
        assert_eq!(name(["GET", "PATCH"], 404, &[], &["a"]), None, "nothing was deleted");
        assert_eq!(name(["DELETE", "PUT"], 404, &[], &["a"]), None, "only a patch starts from the stored object");
        assert_eq!(name(["DELETE", "PATCH"], 404, &["a"], &[]), None, "a warning of ours");
    }

    #[test]
    fn a_new_revision_is_explained_only_where_nothing_else_is_new() {
        let seen = |revision: &str, size: u32, managers: usize| Seen {
            code: 200,
            warnings: vec![],
            media_type: String::new(),
            body: json!({"spec": {"size": size}, "metadata": {
                "uid": "uid-0", "resourceVersion": revision, "managedFields": vec![json!({"operation": "Apply"}); managers],
            }}),
        };
        let mut two = sequence(1);
        two.steps.truncate(2);
        for step in &mut two.steps {
            (step.path, step.media_type) = ("/x".into(), "application/apply-patch+yaml".into());
        }
        let name =
            |first: Seen, ours: Seen, original: Seen| explained(&two, 1, &[first.clone(), ours], &[first, original]);
        let reason = Some("managers-change-places");
        assert_eq!(name(seen("rv-0", 1, 2), seen("rv-0", 1, 2), seen("rv-1", 1, 2)), reason);
        assert_eq!(name(seen("rv-0", 1, 1), seen("rv-0", 1, 1), seen("rv-1", 1, 1)), None, "one has one place");
        assert_eq!(name(seen("rv-0", 1, 2), seen("rv-0", 2, 2), seen("rv-1", 2, 2)), None, "a change is a revision");
    }
}
