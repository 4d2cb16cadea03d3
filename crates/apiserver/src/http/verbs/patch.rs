//! `patch`: JSON patch, merge patch and server-side apply; strategic merge patches for typed kinds only, else 415.

use http::{Response, StatusCode};
use serde_json::Value;

use super::call::Call;
use super::create::{self, Tracking};
use super::decode::{self, admit_fields, check_namespace, check_type, writer};
use super::submit::{self, Live};
use super::update::{self, Wanted, check_has_revision, check_name, check_revision};
use super::{strategic, strategy};
use crate::http::request::options::{WriteOptions, invalid_patch_options};
use crate::http::request::query::FieldValidation;
use crate::http::request::{content, metadata, yaml};
use crate::object::apply::{self, ApplyError};
use crate::object::body::ResponseBody;
use crate::object::error::{ApiError, Cause, Named};
use crate::object::field_error::FieldError;
use crate::object::go_text::go_json;
use crate::object::patch::{self as patches, PatchError, UNPROCESSABLE};

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::BadRequest(message) => ApiError::bad_request(message),
            PatchError::TooLarge(message) => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
            }
            PatchError::Unprocessable(why) => {
                tracing::debug!(%why, "a patch does not fit");
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", UNPROCESSABLE)
            }
        }
    }
}

/// Patches an object.
pub(super) async fn patch(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    match content::media_type(&call.headers).as_str() {
        "application/json-patch+json" => {
            change(call, patches::json_patch_problems, |object, body| Ok(patches::apply_json_patch(object, body)?))
                .await
        }
        "application/merge-patch+json" => {
            change(call, patches::merge_patch_problems, |object, body| Ok(patches::apply_merge_patch(object, body)?))
                .await
        }
        "application/strategic-merge-patch+json" if call.registered.kind.is_typed => {
            change(call, patches::merge_patch_problems, strategic::apply).await
        }
        "application/apply-patch+yaml" => server_side_apply(call).await,
        _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
    }
}

async fn change(
    call: &mut Call,
    problems: fn(&[u8]) -> Vec<String>,
    edit: impl Fn(&Value, &[u8]) -> Result<Value, ApiError>,
) -> Result<Response<ResponseBody>, ApiError> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    if call.query.flag("force") {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(invalid_patch_options(&[error]));
    }
    let wire = update::change(call, |call, live| {
        let body = call.body.clone();
        // The client wrote the patch for the object in its own view.
        let mut shown = live.object.clone();
        call.show(&mut shown);
        let mut object = edit(&shown, &body).map_err(|error| unread(error, options))?;
        call.take_in(&mut object);
        let patched = go_json(&object);
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        if text("kind").is_empty() {
            let why = format!("Object 'Kind' is missing in '{patched}'");
            return Err(refuse_patch(patched, why));
        }
        let has_version = !text("apiVersion").is_empty();
        admit_fields(call, &mut object, problems(&body), options).map_err(|error| refuse_patched(error, patched))?;
        if !has_version {
            let mut error = ApiError::internal(decode::NO_API_VERSION);
            error.causes.push(Cause { message: decode::NO_API_VERSION.into(), ..Cause::default() });
            return Err(error);
        }
        check_namespace(call, &mut object)?;
        check_name(call, &object)?;
        check_has_revision(call, &object)?;
        check_revision(call, &object, live)?;
        check_type(call, &object, Some(&live.object))?;
        Ok(Wanted { object, is_tracked: false })
    })
    .await?;
    call.answer(StatusCode::OK, wire)
}

/// Without strict field validation, the error does not describe the patch's actual JSON type.
fn unread(error: ApiError, options: WriteOptions) -> ApiError {
    let is_other = error.message.contains("into Go value of type map[string]interface {}");
    if is_other && options.field_validation == FieldValidation::Ignore {
        return ApiError::bad_request("Invalid JSON Patch");
    }
    if options.field_validation == FieldValidation::Ignore
        && let Some(what) = error.message.strip_prefix("error decoding patch: ")
        && let Some(what) = what.strip_suffix("handlers.jsonPatchOp")
    {
        let what = what
            .strip_suffix("[]")
            .map_or_else(|| format!("{what}jsonpatch.Operation"), |it| format!("{it}jsonpatch.Patch"));
        return ApiError::bad_request(what);
    }
    error
}

/// Errors in fields of a patched object are shown with the object, as in Kubernetes.
fn refuse_patched(error: ApiError, patched: String) -> ApiError {
    let Some((_, problem)) = error.message.split_once(" cannot be handled as a ") else { return error };
    let Some((_, problem)) = problem.split_once(": ") else { return error };
    refuse_patch(patched, problem.to_owned())
}

fn refuse_patch(patched: String, problem: String) -> ApiError {
    let cause = FieldError::invalid("patch", patched.into(), problem);
    ApiError::invalid(Named { group: "", resource: "", name: "" }, &[cause])
}

async fn server_side_apply(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = WriteOptions::parse(&call.query, "PatchOptions")?;
    if call.query.text("fieldManager").is_none() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(invalid_patch_options(&[error]));
    }
    if !call.info.subresource.is_empty() {
        // An apply to a subresource does not create the object.
        call.shared().cache.catch_up().await?;
        submit::load(call, &call.key()).ok_or_else(|| ApiError::not_found(call.named(&call.info.name)))?;
    }
    let mut applied = yaml::decode_yaml(&call.body)?;
    let duplicates = yaml::duplicate_keys(&call.body);
    let text = |field: &str| applied.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version != call.registered.api_version || kind != call.registered.kind.kind {
        let group_version = if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") };
        return Err(ApiError::bad_request(format!("invalid object type: {group_version}, Kind={kind}")));
    }
    call.take_in(&mut applied);
    let earlier_warnings = call.warnings.len();
    loop {
        let changed = update::change(call, |call, live| {
            let wanted = merge(call, Some(live), &applied)?;
            admit_duplicates(call, duplicates.clone(), options)?;
            check_name(call, &wanted.object)?;
            check_has_revision(call, &wanted.object)?;
            check_revision(call, &wanted.object, live)?;
            Ok(wanted)
        })
        .await;
        let is_create = call.info.subresource.is_empty()
            && matches!(&changed, Err(error) if error.reason == "NotFound" && error.name == call.info.name);
        if !is_create {
            return call.answer(StatusCode::OK, changed?);
        }
        call.warnings.truncate(earlier_warnings);
        let Wanted { object, .. } = merge(call, None, &applied)?;
        admit_duplicates(call, duplicates.clone(), options)?;
        let uid = strategy::metadata_text(&applied, "uid");
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(ApiError::conflict(call.named(&call.info.name), why));
        }
        check_name(call, &object)?;
        update::revision_number(&object)?;
        let warnings = strategy::warnings(&call.registered, &object, None);
        match create::create_object(call, object, Tracking::Done).await {
            // Another client created it concurrently.
            Err(error) if error.reason == "AlreadyExists" => call.warnings.truncate(earlier_warnings),
            created => {
                let wire = created?;
                call.warnings.extend(warnings);
                return call.answer(StatusCode::CREATED, wire);
            }
        }
    }
}

/// Duplicate keys in an applied document are reported after the apply, as Kubernetes does.
fn admit_duplicates(call: &mut Call, duplicates: Option<String>, options: WriteOptions) -> Result<(), ApiError> {
    match (duplicates, options.field_validation) {
        (None, _) | (_, FieldValidation::Ignore) => Ok(()),
        (Some(problem), FieldValidation::Warn) => {
            call.warnings.extend(yaml::warnings(problem));
            Ok(())
        }
        (Some(problem), FieldValidation::Strict) => {
            Err(ApiError::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {problem}")))
        }
    }
}

fn merge(call: &Call, live: Option<&Live>, applied: &Value) -> Result<Wanted, ApiError> {
    let force = call.query.flag("force");
    let manager = call.manager();
    let now = call.time_text();
    let merged = apply::server_side_apply(
        &call.registered.model,
        live.map(|it| &it.object),
        applied,
        force,
        &writer(call, &manager, &now),
    );
    let mut object = merged.map_err(|error| refused(call, error))?;
    // Nulls and unknown fields in metadata are dropped after their ownership was recorded.
    metadata::admit(&mut object).map_err(ApiError::bad_request)?;
    check_namespace(call, &mut object)?;
    call.registered.model.prune(&mut object);
    call.registered.model.default_applied(&mut object);
    // A null in place of a status that is not there changes nothing, also where the schema allows none: Kubernetes compares the status
    // with the old one, which is none as well, and forgets the null when it reads the object.
    if call.info.subresource == "status" && object.get("status").is_some_and(Value::is_null) {
        strategy::remove(&mut object, "status");
    }
    Ok(Wanted { object, is_tracked: true })
}

fn refused(call: &Call, error: ApplyError) -> ApiError {
    let message = error.to_string();
    match &error {
        ApplyError::Conflicts(_) => {
            let mut refusal = ApiError::new(StatusCode::CONFLICT, "Conflict", message);
            let text =
                |cause: &Value, field: &str| cause.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            refusal.causes = error
                .causes()
                .as_array()
                .into_iter()
                .flatten()
                .map(|it| Cause { reason: text(it, "reason"), message: text(it, "message"), field: text(it, "field") })
                .collect();
            refusal
        }
        ApplyError::BadRequest(_) => ApiError::bad_request(message),
        ApplyError::Typed(_) => {
            tracing::debug!(kind = %call.registered.kind.kind, %message, "apply does not fit the schema");
            ApiError::unclassified(message)
        }
    }
}
