//! Turns the body of a request into an object of the call's kind: decoding, pruning, defaults, type and namespace.

use serde_json::Value;

use super::call::Call;
use super::strategy;
use crate::http::request::options::WriteOptions;
use crate::http::request::query::FieldValidation;
use crate::http::request::{content, metadata, yaml};
use crate::object::apply::Writer;
use crate::object::error::{ApiError, Named};
use crate::object::field_error::FieldError;
use crate::object::meta_validate;
use crate::object::patch;

/// Decodes the body as an object of the call's kind; drops and reports unknown fields, and fills in defaults.
pub(super) fn decode(call: &mut Call, options: WriteOptions) -> Result<Value, ApiError> {
    let kind = call.registered.kind.kind.clone();
    let decoded = content::decode_object(&call.headers, &call.body).and_then(|(mut object, duplicates)| {
        if call.registered.kind.is_typed {
            fill_type(call, &mut object);
        }
        let has_kind = object.get("kind").and_then(Value::as_str).is_some_and(|it| !it.is_empty());
        match object.is_object() {
            true if has_kind => Ok((object, duplicates)),
            true => {
                let text = String::from_utf8_lossy(&call.body);
                Err(ApiError::bad_request(format!("Object 'Kind' is missing in '{text}'")))
            }
            false => Err(ApiError::bad_request(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
                patch::json_kind(&object)
            ))),
        }
    });
    let (mut object, duplicates) = decoded.map_err(|error| match error.reason {
        "BadRequest" => ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {} ({})",
            error.message,
            content::excerpt(&call.body)
        )),
        _ => error,
    })?;
    call.take_in(&mut object);
    admit_fields(call, &mut object, duplicates, options)?;
    check_version(call, &object)?;
    Ok(object)
}

/// Fills in `apiVersion` and `kind`: typed clients may omit them.
fn fill_type(call: &Call, object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    let kind = &call.registered.kind.kind;
    for (field, text) in [("apiVersion", &call.registered.api_version), ("kind", kind)] {
        if map.get(field).is_none_or(|it| it.is_null() || it == "") {
            map.insert(field.to_owned(), text.clone().into());
        }
    }
}

/// Prunes and defaults the object; reports dropped fields after the earlier `problems`. For an object of another kind only
/// `metadata` is pruned, so that the later refusal can name it; of another version of this kind only `metadata` is kept.
pub(super) fn admit_fields(
    call: &mut Call,
    object: &mut Value,
    mut problems: Vec<String>,
    options: WriteOptions,
) -> Result<(), ApiError> {
    let registered = call.registered.clone();
    let (group, version, kind) = type_of(object);
    let refuse = |why: String| {
        ApiError::bad_request(match (group.as_str(), version.as_str()) {
            ("", "") => NO_API_VERSION.to_owned(),
            _ => format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"),
        })
    };
    let own_kind = &registered.kind.kind;
    let unreadable =
        |why| ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {own_kind}: {why}"));
    let mut unknown = metadata::admit(object).map_err(unreadable)?;
    let is_own_kind = group == registered.kind.group && kind == registered.kind.kind;
    let is_own_version = is_own_kind && version == registered.kind.version;
    if is_own_version {
        if let Some(error) = registered.model.unreadable(object) {
            return Err(refuse(error.to_string()));
        }
        unknown.extend(registered.model.prune(object).into_iter().map(|it| it.path));
    } else if is_own_kind {
        let known = ["apiVersion", "kind", "metadata"];
        let mut others: Vec<String> = object.as_object().into_iter().flat_map(|it| it.keys().cloned()).collect();
        others.retain(|it| !known.contains(&it.as_str()));
        if let Some(map) = object.as_object_mut() {
            map.retain(|key, _| known.contains(&key.as_str()));
        }
        others.sort();
        unknown.extend(others);
    }
    problems.extend(content::field_problems(&unknown, &[]));
    match options.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => call.warnings.extend(problems.into_iter().flat_map(yaml::warnings)),
        FieldValidation::Strict if problems.is_empty() => {}
        FieldValidation::Strict => {
            return Err(refuse(format!("strict decoding error: {}", problems.join(", "))));
        }
    }
    if is_own_version {
        registered.model.default(object);
    }
    Ok(())
}

/// Kubernetes' message for an object without `apiVersion`.
pub(super) const NO_API_VERSION: &str = "Object 'apiVersion' is missing in 'object has no apiVersion field'";

/// Returns group, version and kind of an object.
fn type_of(object: &Value) -> (String, String, String) {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    (group.to_owned(), version.to_owned(), text("kind").to_owned())
}

/// Whether an object has the call's group and kind.
pub(super) fn is_of_kind(call: &Call, object: &Value) -> bool {
    let (group, _, kind) = type_of(object);
    group == call.registered.kind.group && kind == call.registered.kind.kind
}

/// Checks that `apiVersion` is that of the path.
fn check_version(call: &Call, object: &Value) -> Result<(), ApiError> {
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let expected = &call.registered.api_version;
    if api_version == expected {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({api_version}) does not match the expected API version ({expected})"
    )))
}

/// Checks that `kind` and `apiVersion` are those of the path.
pub(super) fn check_type(call: &Call, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let registered = &call.registered;
    // For the status subresource only `status` is used, so the type is not checked.
    if call.info.subresource == "status" {
        return Ok(());
    }
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    for (field, expected) in [("kind", &registered.kind.kind), ("apiVersion", &registered.api_version)] {
        if text(field) != expected {
            let mut errors = vec![FieldError::invalid(field, text(field).into(), format!("must be {expected}"))];
            let mut prepared = object.clone();
            match old {
                Some(old) => {
                    strategy::prepare_update(registered, &mut prepared, old, "");
                    let is_namespaced = registered.kind.is_namespaced();
                    errors.extend(meta_validate::validate_metadata(&prepared, None, is_namespaced));
                    errors.extend(meta_validate::validate_metadata(&prepared, Some(old), is_namespaced));
                }
                None => strategy::prepare_create(registered, &mut prepared, "", ""),
            }
            // The fields of another kind are not checked, but the rules are.
            let more = registered.model.validate_other_kind(&prepared, old, &errors);
            return Err(refuse_object(object, &[errors, more].concat()));
        }
    }
    Ok(())
}

/// Returns the 422 for an object, which names the object's own kind.
pub(super) fn refuse_object(object: &Value, errors: &[FieldError]) -> ApiError {
    let (group, _, kind) = type_of(object);
    ApiError::invalid(Named { group: &group, resource: &kind, name: strategy::metadata_text(object, "name") }, errors)
}

/// Checks that the namespace in the body is the path's; fills in a missing one.
pub(super) fn check_namespace(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let given = strategy::metadata_text(object, "namespace").to_owned();
    if !call.registered.kind.is_namespaced() {
        if !given.is_empty() {
            strategy::metadata_mut(object).shift_remove("namespace");
        }
        return Ok(());
    }
    if given.is_empty() {
        strategy::metadata_mut(object).insert("namespace".into(), call.info.namespace.clone().into());
    } else if given != call.info.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Returns the writer for managedFields.
pub(super) fn writer<'a>(call: &'a Call, manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer {
        manager,
        subresource: &call.info.subresource,
        api_version: &call.registered.api_version,
        has_status: call.registered.kind.subresources.status,
        now,
    }
}
