//! `patch`: JSON patch, merge patch and server-side apply. Strategic merge patches are for typed kinds only: 415.

use http::{Response, StatusCode};
use serde_json::Value;

use super::create::{self, Tracking, admit_fields, check_namespace, check_type, writer};
use super::submit::Live;
use super::update::{self, Wanted, check_revision};
use super::{Call, strategy};
use crate::apply::{self, ApplyError};
use crate::body::ResponseBody;
use crate::error::{ApiError, Cause};
use crate::patch::{self as patches, PatchError};
use crate::request::content;
use crate::request::query::FieldValidation;
use crate::respond::shape;
use crate::schema::FieldError;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::BadRequest(message) => ApiError::bad_request(message),
            PatchError::TooLarge(message) => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
            }
            PatchError::Unprocessable(message) => {
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
            }
        }
    }
}

/// Changes an object.
pub(super) async fn patch(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    match content::media_type(&call.headers).as_str() {
        "application/json-patch+json" => change(call, |object, body| Ok(patches::apply_json_patch(object, body)?)).await,
        "application/merge-patch+json" => change(call, |object, body| Ok(patches::apply_merge_patch(object, body)?)).await,
        "application/apply-patch+yaml" => server_side_apply(call).await,
        _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
    }
}

async fn change(
    call: &mut Call,
    edit: impl Fn(&Value, &[u8]) -> Result<Value, ApiError>,
) -> Result<Response<ResponseBody>, ApiError> {
    if call.query.flag("force") {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(invalid_options(&[error]));
    }
    let wire = update::change(call, |call, live| {
        let body = call.body.clone();
        let mut object = edit(&live.object, &body)?;
        check_type(call, &object)?;
        check_namespace(call, &mut object)?;
        check_revision(call, &object, live)?;
        admit_fields(call, &mut object, &[])?;
        Ok(Wanted { object, is_tracked: false })
    })
    .await?;
    shape::object(&call.registered, call.accepted, &call.query, StatusCode::OK, wire)
}

/// The 422 for wrong parameters of a patch.
fn invalid_options(errors: &[FieldError]) -> ApiError {
    ApiError::invalid(crate::error::Named { group: "meta.k8s.io", resource: "PatchOptions", name: "" }, errors)
}

async fn server_side_apply(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    if call.query.text("fieldManager").is_none() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(invalid_options(&[error]));
    }
    let applied = content::decode_yaml(&call.body)?;
    check_type(call, &applied)?;
    report_unknown(call, &applied)?;
    let name = strategy::metadata_text(&applied, "name").to_owned();
    if !name.is_empty() && name != call.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        )));
    }
    loop {
        let changed = update::change(call, |call, live| {
            check_revision(call, &applied, live)?;
            merge(call, Some(live), &applied)
        })
        .await;
        let is_create = call.info.subresource.is_empty()
            && matches!(&changed, Err(error) if error.reason == "NotFound" && error.name == call.info.name);
        if !is_create {
            return shape::object(&call.registered, call.accepted, &call.query, StatusCode::OK, changed?);
        }
        if !strategy::metadata_text(&applied, "uid").is_empty() {
            let why = "uid mismatch: the provided object specified uid, and no existing object was found";
            return Err(ApiError::conflict(call.named(&call.info.name), why));
        }
        let Wanted { mut object, .. } = merge(call, None, &applied)?;
        strategy::metadata_mut(&mut object).insert("name".into(), call.info.name.clone().into());
        match create::create_object(call, object, Tracking::Done).await {
            // Somebody else made it meanwhile.
            Err(error) if error.reason == "AlreadyExists" => {}
            created => {
                return shape::object(&call.registered, call.accepted, &call.query, StatusCode::CREATED, created?);
            }
        }
    }
}

/// Unknown fields of what was applied; apply itself refuses or drops them by the schema.
fn report_unknown(call: &mut Call, applied: &Value) -> Result<(), ApiError> {
    let mode = call.query.field_validation()?;
    if mode == FieldValidation::Ignore {
        return Ok(());
    }
    let unknown: Vec<String> =
        call.registered.model.prune(&mut applied.clone()).into_iter().map(|it| it.path).collect();
    if mode == FieldValidation::Strict {
        content::report_fields(mode, &unknown, &[], &mut call.warnings)?;
    }
    Ok(())
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
    check_namespace(call, &mut object)?;
    call.registered.model.prune(&mut object);
    call.registered.model.default(&mut object);
    Ok(Wanted { object, is_tracked: true })
}

fn refused(call: &Call, error: ApplyError) -> ApiError {
    let message = error.to_string();
    match &error {
        ApplyError::Conflicts(_) => {
            let mut refusal = ApiError::new(StatusCode::CONFLICT, "Conflict", message);
            let text = |cause: &Value, field: &str| cause.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
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
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
        }
    }
}
