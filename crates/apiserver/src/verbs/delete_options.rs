//! How a deletion is to be done, from the body and the query.

use serde::Deserialize;

use super::Call;
use crate::error::ApiError;
use crate::request::content;

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Propagation {
    /// They are deleted after it.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay and lose the reference.
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
    /// Reads them.
    pub(super) fn read(call: &Call) -> Result<Self, ApiError> {
        let body: Body = if call.body.is_empty() {
            Body::default()
        } else {
            let (value, _) = content::decode_object(&call.headers, &call.body)?;
            serde_json::from_value(value).map_err(|error| {
                ApiError::bad_request(format!("the body of a delete must be DeleteOptions: {error}"))
            })?
        };
        let dry_run = match body.dry_run.as_deref() {
            None | Some([]) => call.query.dry_run()?,
            Some([only]) if only == "All" => true,
            Some(other) => {
                return Err(ApiError::bad_request(format!("invalid dryRun {other:?}: the only supported value is \"All\"")));
            }
        };
        let policy = body.propagation_policy.as_deref().or(call.query.text("propagationPolicy"));
        let orphan = body.orphan_dependents.or(call.query.optional_flag("orphanDependents"));
        let propagation = match (policy, orphan) {
            (Some("Background"), _) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) => Some(Propagation::Orphan),
            (Some(other), _) => {
                return Err(ApiError::bad_request(format!(
                    "invalid propagationPolicy {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                )));
            }
            (None, Some(true)) => Some(Propagation::Orphan),
            (None, Some(false)) => Some(Propagation::Background),
            (None, None) => None,
        };
        let preconditions = body.preconditions;
        Ok(DeleteOptions {
            propagation,
            uid: preconditions.as_ref().and_then(|it| it.uid.clone()),
            revision: preconditions.and_then(|it| it.resource_version),
            dry_run,
        })
    }
}
