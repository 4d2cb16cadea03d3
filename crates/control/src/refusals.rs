//! Converts the findings of the rules of `evroc-api` into the API server's errors.

use evroc_api::claims::{ChosenBy, Claim};
use evroc_api::rules::Problem;
use evroc_apiserver::schema::FieldError;
use evroc_apiserver::{ClaimKey, ClaimRefusal};
use serde_json::Value;

/// The platform can choose again; everything else the user has to change.
pub(crate) fn claim(claim: Claim) -> ClaimKey {
    let refusal = match claim.chosen_by {
        ChosenBy::User => ClaimRefusal::Invalid,
        ChosenBy::Platform => ClaimRefusal::Conflict,
    };
    ClaimKey { key: claim.key, field: claim.field, what: claim.what, refusal }
}

/// Problems with the values that they are about.
pub(crate) fn field_errors(object: &Value, problems: Vec<Problem>) -> Vec<FieldError> {
    let error = |problem: Problem| {
        let value = value_at(object, &problem.field);
        FieldError::invalid(&problem.field, value, problem.message)
    };
    problems.into_iter().map(error).collect()
}

/// The value at `spec.a[0].b`.
fn value_at(object: &Value, path: &str) -> Value {
    let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
    object.pointer(&pointer).cloned().unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_shows_what_was_found() {
        let object = json!({"spec": {"list": [{"name": "a"}, {"name": "b"}]}});
        for (path, value) in
            [("spec.list[1].name", json!("b")), ("spec.list[2].name", Value::Null), ("spec.x", Value::Null)]
        {
            let errors = field_errors(&object, vec![Problem::new(path, "wrong")]);
            assert_eq!((errors[0].path.as_str(), errors[0].value.clone()), (path, Some(value)), "{path}");
        }
    }
}
