//! The options of a deletion, from the body or the query.

use serde::Deserialize;

use super::call::Call;
use crate::http::request::{content, options};
use crate::object::error::ApiError;
use crate::object::field_error::FieldError;

/// The treatment of a deleted object's dependents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Propagation {
    /// They are deleted after it.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They are kept and lose the reference.
    Orphan,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeleteOptions {
    pub(super) propagation: Option<Propagation>,
    pub(super) uid: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) dry_run: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    propagation_policy: Option<String>,
    #[serde(default)]
    orphan_dependents: Option<bool>,
    #[serde(default)]
    preconditions: Option<Preconditions>,
    #[serde(default)]
    dry_run: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preconditions {
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    resource_version: Option<String>,
}

impl DeleteOptions {
    /// Parses them.
    pub(super) fn read(call: &Call) -> Result<Self, ApiError> {
        let body: Body = if call.body.is_empty() {
            Body::default()
        } else {
            let (value, _) = content::decode_object(&call.headers, &call.body)?;
            let text = |field: &str| value.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
            if !matches!(text("kind"), "" | "DeleteOptions") {
                let version = Some(text("apiVersion")).filter(|it| !it.is_empty()).unwrap_or("meta.k8s.io/v1");
                return Err(ApiError::bad_request(format!(
                    "no kind {:?} is registered for version {version:?} in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\"",
                    text("kind")
                )));
            }
            serde_json::from_value(value).map_err(|error| {
                ApiError::bad_request(format!("the body of a delete must be DeleteOptions: {error}"))
            })?
        };
        let mut errors = Vec::new();
        // With a body, Kubernetes ignores the query.
        let query = Some(&call.query).filter(|_| call.body.is_empty());
        let values = query.into_iter().flat_map(|it| it.all("dryRun"));
        let dry_run = options::dry_run(body.dry_run.iter().flatten().map(String::as_str).chain(values), &mut errors);
        let policy = body.propagation_policy.as_deref().or(query.and_then(|it| it.text("propagationPolicy")));
        let orphan = body.orphan_dependents.or(query.and_then(|it| it.optional_flag("orphanDependents")));
        const POLICY: &str = "propagationPolicy";
        if let (Some(policy), Some(_)) = (policy, orphan) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(POLICY, policy.into(), detail));
        }
        let propagation = match (policy, orphan) {
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some(other), _) => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(POLICY, other.into(), &known));
                None
            }
            (None, None) => None,
        };
        if !errors.is_empty() {
            return Err(options::invalid_delete_options(&errors));
        }
        let preconditions = body.preconditions;
        Ok(DeleteOptions {
            propagation,
            uid: preconditions.as_ref().and_then(|it| it.uid.clone()),
            revision: preconditions.and_then(|it| it.resource_version),
            dry_run,
        })
    }
}
