//! Server-side apply: field ownership (`metadata.managedFields`), merging by the schema, conflicts.
//!
//! The behaviour is that of Kubernetes' field manager over structured-merge-diff:
//! - a manager that *applies* owns the leaves it names, list items with their keys, and entries of maps;
//! - any other write owns the fields that it changed, and all other managers lose them;
//! - an apply that changes fields of other managers is a conflict, unless forced; a field that it no longer names is removed if
//!   no other manager owns it.
//!
//! Everything here is a function of its arguments; the time is one of them.

mod check;
mod client_side;
mod compare;
mod conflict;
mod managers;
mod merge;
mod path;
mod reconcile;
mod set;
mod types;
mod update;

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod tests;

use crate::object::schema::Model;
use check::Duplicates;
use managers::{Managers, Operation};
use serde_json::{Value, json};
use types::Ty;

pub use conflict::Conflict;
pub use path::Step;
pub use set::FieldSet;

/// The manager that owns the fields that existed before the first apply to an object without managedFields.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The writer, the endpoint and the time of a write.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The field manager: `fieldManager` of the request, else [`default_manager`].
    pub manager: &'a str,
    /// `""` for the object itself, else `"status"`, `"scale"`…
    pub subresource: &'a str,
    /// The version written through, e.g. `compute.evroclabs.net/v1alpha1`.
    pub api_version: &'a str,
    /// Whether the kind has a status subresource: then writes to the object itself never own `status`.
    pub has_status: bool,
    /// RFC 3339, whole seconds, UTC: `2026-11-21T03:00:00Z`.
    pub now: &'a str,
}

/// An apply that cannot be done. `Display` is the `message` of the Status.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Other managers own fields that this apply changes: HTTP 409, reason `Conflict`.
    #[error("{}", conflict::message(.0))]
    Conflicts(Vec<Conflict>),
    /// An invalid request: HTTP 400, reason `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// An applied or stored object that does not fit the schema: HTTP 500 without a reason, as Kubernetes answers.
    #[error("{0}")]
    Typed(String),
}

impl ApplyError {
    /// `details.causes` of the 409; empty for other errors.
    pub fn causes(&self) -> Value {
        match self {
            ApplyError::Conflicts(conflicts) => conflict::causes(conflicts),
            _ => Value::Array(Vec::new()),
        }
    }
}

/// Returns the merged object with its managedFields. `live` is the stored object (with its managedFields), or `None` for a
/// create; `applied` is the object as the client sent it, with unknown fields.
///
/// The caller still has to prune nulls and fill in defaults ([`Model::default`]), restore what the endpoint may not change
/// ([`reset_unwritable`]), validate the result and store it like any update.
///
/// # Errors
/// See [`ApplyError`].
pub fn server_side_apply(
    model: &Model,
    live: Option<&Value>,
    applied: &Value,
    force: bool,
    writer: &Writer<'_>,
) -> Result<Value, ApplyError> {
    let ty = Ty::of(model);
    let text = |key: &str| applied.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != writer.api_version {
        return Err(ApplyError::BadRequest(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
            text("apiVersion"),
            writer.api_version
        )));
    }
    if applied.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_string()));
    }
    let mut live_object = match live {
        Some(live) => live.clone(),
        None => json!({"apiVersion": applied.get("apiVersion"), "kind": applied.get("kind")}),
    };
    let mut managers = managers::decode(&live_object)
        .ok_or_else(|| ApplyError::Typed("failed to decode managed fields".to_string()))?;
    managers::strip(&mut live_object);
    let typed = |what: &str, object: &Value, duplicates| {
        check::check(object, ty, duplicates)
            .map_err(|e| ApplyError::Typed(format!("failed to create typed {what} object ({}): {e}", identity(object))))
    };
    typed("patch", applied, Duplicates::Refused)?;
    typed("live", &live_object, Duplicates::Allowed)?;

    let ignored = update::reset_fields(writer.subresource, writer.has_status);
    if managers.is_empty() && live.is_some() {
        let before = update::writer_id(BEFORE_FIRST_APPLY, Operation::Update, writer.api_version, writer.subresource);
        update::update(&json!({}), &live_object, ty, &mut managers, &before, &ignored, writer.now);
    }
    let apply = update::Apply {
        ty,
        ignored,
        writer: update::writer_id(writer.manager, Operation::Apply, writer.api_version, writer.subresource),
        api_version: writer.api_version,
        now: writer.now,
    };
    let before = managers.clone();
    let merged = match apply.run(&live_object, applied, &mut managers, force) {
        Err(conflicts) if writer.manager == client_side::KUBECTL => {
            let conflicts = match client_side::allowed_conflicts(&live_object, ty, writer.api_version) {
                Some(allowed) => conflicts.into_iter().filter(|c| !allowed.contains(&c.path)).collect(),
                None => conflicts,
            };
            if !conflicts.is_empty() {
                return Err(ApplyError::Conflicts(conflicts));
            }
            managers = before;
            apply.run(&live_object, applied, &mut managers, true)
        }
        other => other,
    };
    let mut out = merged.map_err(ApplyError::Conflicts)?.unwrap_or(live_object);
    if writer.manager == client_side::KUBECTL {
        client_side::renew_annotation(&mut out, applied);
    }
    managers::encode(&mut out, &managers);
    Ok(out)
}

/// `namespace/name; group/version, Kind=kind`, as in Kubernetes' messages.
fn identity(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!(
        "{}/{}; {}, Kind={}",
        text("/metadata/namespace"),
        text("/metadata/name"),
        text("/apiVersion"),
        text("/kind")
    )
}

/// Updates `new`'s managedFields for a create (`live` = None), update, or JSON or merge patch. Call it with the object after
/// pruning and defaulting. Invalid managedFields in the request never fail the write: the live ones are used instead.
pub fn track_update(model: &Model, live: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let ty = Ty::of(model);
    let live_managers = || live.and_then(managers::decode).unwrap_or_default();
    let mut managers: Managers = if !writer.subresource.is_empty() {
        live_managers()
    } else if managers::asks_for_reset(new) {
        Managers::new()
    } else {
        managers::decode(new).filter(|m| !m.is_empty()).unwrap_or_else(live_managers)
    };
    managers::strip(new);
    // An object whose managedFields were removed stays without them until something is applied to it.
    if managers.is_empty() && live.is_some() {
        return;
    }
    let mut live_object = live.cloned().unwrap_or_else(|| json!({}));
    managers::strip(&mut live_object);
    let id = update::writer_id(writer.manager, Operation::Update, writer.api_version, writer.subresource);
    let ignored = update::reset_fields(writer.subresource, writer.has_status);
    update::update(&live_object, new, ty, &mut managers, &id, &ignored, writer.now);
    managers::cap_updaters(&mut managers);
    managers::encode(new, &managers);
}

/// Whether an object has the structure that its schema describes; limits and patterns are not checked.
pub fn fits(model: &Model, object: &Value) -> bool {
    check::check(object, Ty::of(model), Duplicates::Allowed).is_ok()
}

/// Restores what a write through this endpoint may not change: `status` through the object itself (if the kind has a status
/// subresource), everything but `status` and managedFields through `/status`.
pub fn reset_unwritable(live: Option<&Value>, new: &mut Value, subresource: &str, has_status: bool) {
    let Some(map) = new.as_object_mut() else { return };
    match (subresource, live) {
        ("", live) if has_status => match live.and_then(|l| l.get("status")) {
            Some(status) => {
                map.insert("status".to_string(), status.clone());
            }
            None => {
                map.shift_remove("status");
            }
        },
        ("status", Some(live)) => {
            let status = map.shift_remove("status");
            let managed = map.get("metadata").and_then(|m| m.get("managedFields")).cloned();
            let version = map.get("metadata").and_then(|m| m.get("resourceVersion")).cloned();
            let mut out = live.clone();
            if let Some(out) = out.as_object_mut() {
                out.shift_remove("status");
                out.extend(status.map(|s| ("status".to_string(), s)));
                if let Some(meta) = out.get_mut("metadata").and_then(Value::as_object_mut) {
                    meta.shift_remove("managedFields");
                    meta.extend(managed.map(|m| ("managedFields".to_string(), m)));
                    meta.extend(version.map(|v| ("resourceVersion".to_string(), v)));
                }
            }
            *new = out;
        }
        _ => {}
    }
}

/// Returns the manager of a request without `fieldManager`: the user agent up to the first `/`, without unprintable characters,
/// at most 128 bytes.
pub fn default_manager(user_agent: &str) -> String {
    let mut out = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > crate::object::meta_validate::MAX_MANAGER_LENGTH {
            break;
        }
        out.push(c);
    }
    out
}

/// If `new` differs from `live` in nothing but times in managedFields, gives `new` the old ones, so that nothing is written.
/// Returns whether the two are then equal.
pub fn keep_times_if_unchanged(live: &Value, new: &mut Value) -> bool {
    if live == new {
        return true;
    }
    if !crate::object::patch::is_no_op(live, new) {
        return false;
    }
    let managed = live.pointer("/metadata/managedFields").cloned();
    if let (Some(meta), Some(managed)) = (new.get_mut("metadata").and_then(Value::as_object_mut), managed) {
        meta.insert("managedFields".to_string(), managed);
    }
    true
}
