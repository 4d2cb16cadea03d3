//! Parameters that are checked before anything else, with a 422 that names all errors.

use serde_json::json;

use super::query::{FieldValidation, Query};
use crate::object::error::{ApiError, Named};
use crate::object::field_error::FieldError;

/// Kubernetes' limit on the length of `fieldManager`.
const MANAGER_BYTES: usize = 128;

/// Returns the 422 for parameters; `options` is Kubernetes' name for them.
fn refuse(options: &str, errors: &[FieldError]) -> ApiError {
    ApiError::invalid(Named { group: "meta.k8s.io", resource: options, name: "" }, errors)
}

/// Parameters of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    /// Nothing is stored.
    pub(crate) dry_run: bool,
    /// How unknown fields are treated.
    pub(crate) field_validation: FieldValidation,
}

impl WriteOptions {
    /// Parses them; `options` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    ///
    /// # Errors
    /// 422.
    pub(crate) fn parse(query: &Query, options: &str) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        if let Some(manager) = query.text("fieldManager") {
            if manager.len() > MANAGER_BYTES {
                errors.push(FieldError::too_long("fieldManager", MANAGER_BYTES));
            }
            if let Some((position, found)) = manager.chars().enumerate().find(|it| it.1.is_control()) {
                let detail = format!("invalid character U+{:04X} (at position {position})", u32::from(found));
                errors.push(FieldError::invalid("fieldManager", json!(manager), detail));
            }
        }
        let field_validation = match query.text("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let known = ["", "Ignore", "Strict", "Warn"];
                errors.push(FieldError::not_supported("fieldValidation", json!(other), &known));
                FieldValidation::Warn
            }
        };
        if errors.is_empty() { Ok(WriteOptions { dry_run, field_validation }) } else { Err(refuse(options, &errors)) }
    }
}

/// Whether a dry run is requested: all values of `dryRun` must be `All`.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|it| *it != "All") {
        errors.push(FieldError::not_supported("dryRun", json!(values), &["All"]));
    }
    !values.is_empty()
}

/// The 422 for wrong parameters of a patch.
pub(crate) fn invalid_patch_options(errors: &[FieldError]) -> ApiError {
    refuse("PatchOptions", errors)
}

/// The 422 for wrong parameters of a deletion.
pub(crate) fn invalid_delete_options(errors: &[FieldError]) -> ApiError {
    refuse("DeleteOptions", errors)
}

/// Checks the combination of `resourceVersion`, `resourceVersionMatch`, `continue` and `sendInitialEvents`.
///
/// # Errors
/// 422.
pub(crate) fn check_list(query: &Query, is_watch: bool) -> Result<(), ApiError> {
    const MATCH: &str = "resourceVersionMatch";
    let mut errors = Vec::new();
    let initial = query.optional_flag("sendInitialEvents");
    let matching = query.text(MATCH);
    let revision = query.text("resourceVersion");
    let mut forbid = |field: &str, detail: &str| errors.push(FieldError::forbidden(field, detail));
    if is_watch {
        if matching.is_some() && initial.is_none() {
            forbid(MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        }
        if initial.is_some() && matching != Some("NotOlderThan") {
            forbid(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if query.text("continue").is_some() {
            forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
        }
        if let Some(other) = matching.filter(|it| *it != "NotOlderThan") {
            errors.push(FieldError::not_supported(MATCH, json!(other), &["NotOlderThan"]));
        }
    } else {
        if initial.is_some() {
            forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if let Some(matching) = matching {
            if revision.is_none() {
                forbid(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if query.text("continue").is_some() {
                forbid(MATCH, "resourceVersionMatch is forbidden when continue is provided");
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                let known = ["Exact", "NotOlderThan", ""];
                errors.push(FieldError::not_supported(MATCH, json!(matching), &known));
            }
            if matching == "Exact" && revision == Some("0") {
                errors.push(FieldError::forbidden(
                    MATCH,
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(refuse("ListOptions", &errors)) }
}
