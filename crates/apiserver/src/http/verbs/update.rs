//! `update`, and the loop that it shares with `patch`: read, change, compare, write, and again after a concurrent write.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;

use super::call::Call;
use super::decode::{self, check_namespace, check_type, decode, writer};
use super::strategy;
use super::submit::{self, Guards, Live, Submitted};
use crate::http::request::options::WriteOptions;
use crate::object::apply;
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;
use crate::object::field_error::FieldError;

/// Attempts at a change that fits any state before it is given up because of concurrent writes.
const ATTEMPTS: usize = 50;

/// The state that a client wants to replace `live`.
pub(super) struct Wanted {
    /// Pruned and defaulted.
    pub(super) object: Value,
    /// Whether managedFields are already updated (by server-side apply).
    pub(super) is_tracked: bool,
}

/// Replaces an object.
pub(super) async fn update(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let mut object = decode(call, options)?;
    check_namespace(call, &mut object)?;
    check_name(call, &object)?;
    let wire = change(call, |call, live| {
        check_uid(call, &object, live)?;
        check_has_revision(call, &object)?;
        check_revision(call, &object, live)?;
        check_type(call, &object, Some(&live.object))?;
        Ok(Wanted { object: object.clone(), is_tracked: false })
    })
    .await?;
    call.answer(StatusCode::OK, wire)
}

/// Checks that the name in the wanted state is the path's.
pub(super) fn check_name(call: &Call, object: &Value) -> Result<(), ApiError> {
    let (name, expected) = (strategy::metadata_text(object, "name"), &call.info.name);
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({expected} based on URL) was undeterminable: name must be provided"
        )));
    }
    if name != expected {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({expected})"
        )));
    }
    Ok(())
}

/// Unconditional updates are not allowed for custom resources: `resourceVersion` is required.
pub(super) fn check_has_revision(call: &Call, object: &Value) -> Result<(), ApiError> {
    if !call.registered.kind.has_generation || !strategy::metadata_text(object, "resourceVersion").is_empty() {
        return Ok(());
    }
    let detail = "must be specified for an update";
    let error = FieldError::invalid("metadata.resourceVersion", Value::from(0), detail);
    Err(ApiError::invalid(call.named(&call.info.name), &[error]))
}

/// Checks that a `resourceVersion` in the wanted state is the live one.
pub(super) fn check_revision(call: &Call, object: &Value, live: &Live) -> Result<(), ApiError> {
    let given = strategy::metadata_text(object, "resourceVersion");
    if given.is_empty() || given == "0" || given == live.revision.to_string() {
        return Ok(());
    }
    revision_number(object)?;
    Err(ApiError::modified(call.named(&call.info.name)))
}

/// Checks that a `resourceVersion` in the wanted state is a number.
pub(super) fn revision_number(object: &Value) -> Result<(), ApiError> {
    let given = strategy::metadata_text(object, "resourceVersion");
    if given.is_empty() || given.parse::<u64>().is_ok() {
        return Ok(());
    }
    Err(ApiError::unclassified(format!("strconv.ParseUint: parsing {given:?}: invalid syntax")))
}

/// Checks that a uid in the wanted state is the live one.
fn check_uid(call: &Call, object: &Value, live: &Live) -> Result<(), ApiError> {
    let (given, stored) = (strategy::metadata_text(object, "uid"), strategy::metadata_text(&live.object, "uid"));
    if given.is_empty() || given == stored {
        return Ok(());
    }
    let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {stored}");
    Err(ApiError::conflict(call.named(&call.info.name), why))
}

/// Changes the object in the path by `make`, which is called again with the newest state after a concurrent write. Returns the
/// stored form.
///
/// # Errors
/// 404 if the object does not exist, errors of `make`, and errors in the result.
pub(super) async fn change(
    call: &mut Call,
    mut make: impl FnMut(&mut Call, &Live) -> Result<Wanted, ApiError>,
) -> Result<Bytes, ApiError> {
    call.shared().cache.catch_up().await?;
    let key = call.key();
    let earlier_warnings = call.warnings.len();
    for _ in 0..ATTEMPTS {
        let live = submit::load(call, &key).ok_or_else(|| ApiError::not_found(call.named(&call.info.name)))?;
        call.warnings.truncate(earlier_warnings);
        let wanted = make(call, &live)?;
        let warnings = strategy::warnings(&call.registered, &wanted.object, Some(&live.object));
        if let Some(wire) = attempt(call, &live, wanted).await? {
            if call.info.subresource.is_empty() {
                call.warnings.extend(warnings);
            }
            return Ok(wire);
        }
    }
    Err(ApiError::modified(call.named(&call.info.name)))
}

/// Makes one attempt; `None` if the object has changed concurrently.
async fn attempt(call: &Call, live: &Live, wanted: Wanted) -> Result<Option<Bytes>, ApiError> {
    let registered = &call.registered;
    let key = call.key();
    let Wanted { mut object, is_tracked } = wanted;
    check_name(call, &object)?;
    let is_own = decode::is_of_kind(call, &object);
    let is_own_version = object.get("apiVersion").is_some_and(|it| *it == registered.api_version);
    let is_typed = is_own && is_own_version && apply::fits(&registered.model, &object);
    let sent = (!is_own).then(|| object.clone());
    strategy::prepare_update(registered, &mut object, &live.object, &call.info.subresource);
    if sent.is_some() {
        // The client sent another kind, which was not pruned before.
        registered.model.prune(&mut object);
    }
    if let Some(prepare) = &registered.kind.prepare {
        prepare(&mut object, Some(&live.object));
    }
    let now = call.time_text();
    if !is_tracked && is_typed {
        let manager = call.manager();
        apply::track_update(&registered.model, Some(&live.object), &mut object, &writer(call, &manager, &now));
    }
    if !is_tracked && !is_typed {
        // The ownership of these fields is unknown.
        strategy::metadata_mut(&mut object).shift_remove("managedFields");
    }
    submit::validate(call, sent.as_ref(), &object, Some(&live.object))?;
    let is_gone = strategy::is_deleting(&object) && strategy::is_finalized(registered, &object);
    if !is_gone && apply::keep_times_if_unchanged(&live.object, &mut object) {
        return Ok(Some(serde_json::to_vec(&live.object).unwrap_or_default().into()));
    }
    let stored = (!is_gone).then_some(&object);
    match submit::submit(call, &key, Some(live), stored, Guards::default()).await? {
        Submitted::Done(_) if is_gone => Ok(Some(serde_json::to_vec(&object).unwrap_or_default().into())),
        Submitted::Done(wire) => Ok(Some(wire)),
        Submitted::ObjectChanged | Submitted::NamespaceChanged => Ok(None),
    }
}
