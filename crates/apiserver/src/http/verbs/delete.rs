//! `delete`: removes the object if it has no finalizers, else marks it as deleting.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::call::Call;
use super::delete_options::{DeleteOptions, Propagation};
use super::strategy;
use super::submit::{self, Guards, Live, Submitted};
use crate::http::respond;
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;
use crate::object::meta_validate::finalizers::{FOREGROUND, ORPHAN};
use crate::state::storage::keys::ObjectKey;

/// The outcome of a deletion.
pub(super) enum Deleted {
    /// The object was removed; its last state.
    Removed(Value),
    /// The object waits for its finalizers; its new state.
    Waiting(Bytes),
}

/// Deletes the object in the path.
pub(super) async fn delete(call: &Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = DeleteOptions::read(call)?;
    call.shared().cache.catch_up().await?;
    match delete_object(call, &call.key(), &options).await? {
        Deleted::Waiting(wire) => call.answer(StatusCode::OK, wire),
        Deleted::Removed(object) => {
            let kind = &call.registered.kind;
            let mut details =
                json!({"name": call.info.name, "kind": kind.plural, "uid": strategy::metadata_text(&object, "uid")});
            if !kind.group.is_empty() {
                details["group"] = json!(kind.group);
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            respond::value(StatusCode::OK, &status, call.accepted.encoding)
        }
    }
}

/// Deletes one object.
pub(super) async fn delete_object(call: &Call, key: &ObjectKey, options: &DeleteOptions) -> Result<Deleted, ApiError> {
    loop {
        let live = submit::load(call, key).ok_or_else(|| ApiError::not_found(call.named(key.name())))?;
        check_preconditions(call, key, options, &live)?;
        let mut object = live.object.clone();
        set_propagation(&mut object, options.propagation);
        if strategy::is_finalized(&call.registered, &object) {
            match submit::submit(call, key, Some(&live), None, Guards::default()).await? {
                Submitted::Done(_) => return Ok(Deleted::Removed(live.object)),
                Submitted::ObjectChanged | Submitted::NamespaceChanged => continue,
            }
        }
        if !strategy::is_deleting(&object) {
            strategy::mark_deleted(&call.registered, &mut object, &call.time_text());
        }
        if object == live.object {
            return Ok(Deleted::Waiting(serde_json::to_vec(&object).unwrap_or_default().into()));
        }
        match submit::submit(call, key, Some(&live), Some(&object), Guards::default()).await? {
            Submitted::Done(wire) => return Ok(Deleted::Waiting(wire)),
            Submitted::ObjectChanged | Submitted::NamespaceChanged => {}
        }
    }
}

fn check_preconditions(call: &Call, key: &ObjectKey, options: &DeleteOptions, live: &Live) -> Result<(), ApiError> {
    let uid = strategy::metadata_text(&live.object, "uid");
    let revision = live.revision.to_string();
    let why = match (&options.uid, &options.revision) {
        (Some(wanted), _) if wanted != uid => {
            format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            )
        }
        (_, Some(wanted)) if *wanted != revision => format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The object might have been modified"
        ),
        _ => return Ok(()),
    };
    Err(ApiError::conflict(call.named_kind(key.name()), why))
}

/// Sets the garbage collector's finalizers, which determine what happens to dependents.
fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let metadata = strategy::metadata_mut(object);
    let mut finalizers = metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    finalizers.retain(|it| it.as_str() == wanted || !matches!(it.as_str(), Some(ORPHAN | FOREGROUND)));
    if let Some(wanted) = wanted
        && !finalizers.iter().any(|it| it == wanted)
    {
        finalizers.push(wanted.into());
    }
    if finalizers.is_empty() {
        metadata.shift_remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), Value::Array(finalizers));
    }
}
