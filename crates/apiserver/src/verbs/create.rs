//! `create`.

use http::{Response, StatusCode};
use rand_bytes::five;
use serde_json::Value;
use uuid::Uuid;

use super::submit::{self, Submitted};
use super::{Call, strategy};
use crate::apply::{self, Writer};
use crate::body::ResponseBody;
use crate::error::{ApiError, Named};
use crate::meta_validate;
use crate::patch;
use crate::request::options::WriteOptions;
use crate::request::query::FieldValidation;
use crate::request::{content, metadata};
use crate::respond::shape;
use crate::schema::FieldError;
use crate::virtual_kind::Question;

/// Attempts with another generated name before the client is told, as in Kubernetes.
const NAME_ATTEMPTS: usize = 8;

mod rand_bytes {
    /// Five random bytes, from a random UUID.
    pub(super) fn five() -> [u8; 5] {
        let bytes = uuid::Uuid::new_v4().into_bytes();
        [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]
    }
}

/// Reads the body as an object of the call's kind; unknown fields are gone and reported, defaults are filled in.
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
    check_version(call, &object, options)?;
    call.take_in(&mut object);
    let told = call.warnings.len();
    admit_fields(call, &mut object, &duplicates, options)?;
    if object.get("kind").and_then(Value::as_str) != Some(call.registered.kind.kind.as_str()) {
        // What another kind's fields are is not for this one to say.
        call.warnings.truncate(told);
    }
    Ok(object)
}

/// Clients that know a kind as a type may leave its name to the path.
fn fill_type(call: &Call, object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    let kind = &call.registered.kind.kind;
    for (field, text) in [("apiVersion", &call.registered.api_version), ("kind", kind)] {
        if map.get(field).is_none_or(|it| it.is_null() || it == "") {
            map.insert(field.to_owned(), text.clone().into());
        }
    }
}

/// Prunes and defaults; reports what was dropped.
pub(super) fn admit_fields(
    call: &mut Call,
    object: &mut Value,
    duplicates: &[String],
    options: WriteOptions,
) -> Result<(), ApiError> {
    let registered = call.registered.clone();
    let (kind, version) = (&registered.kind.kind, &registered.kind.version);
    let refuse = |why: String| {
        ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    };
    let mut unknown = metadata::admit(object).map_err(refuse)?;
    unknown.extend(registered.model.prune(object).into_iter().map(|it| it.path));
    let problems = content::field_problems(&unknown, duplicates);
    match options.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => call.warnings.extend(problems),
        FieldValidation::Strict if problems.is_empty() => {}
        FieldValidation::Strict => {
            return Err(refuse(format!("strict decoding error: {}", problems.join(", "))));
        }
    }
    registered.model.default(object);
    Ok(())
}

/// `apiVersion` must be that of the path. Of another version Kubernetes knows no field, and says so first.
fn check_version(call: &mut Call, object: &Value, options: WriteOptions) -> Result<(), ApiError> {
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let expected = &call.registered.api_version;
    if api_version == expected {
        return Ok(());
    }
    let refused = ApiError::bad_request(format!(
        "the API version in the data ({api_version}) does not match the expected API version ({expected})"
    ));
    if options.field_validation == FieldValidation::Warn && !api_version.is_empty() {
        let own = ["apiVersion", "kind", "metadata"];
        let mut unknown: Vec<&String> = object.as_object().into_iter().flat_map(|it| it.keys()).collect();
        unknown.retain(|it| !own.contains(&it.as_str()));
        unknown.sort();
        call.warnings.extend(unknown.into_iter().map(|it| format!("unknown field {it:?}")));
    }
    Err(refused)
}

/// `kind` must be that of the path.
pub(super) fn check_kind(call: &Call, object: &Value) -> Result<(), ApiError> {
    let registered = &call.registered;
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    // A status is taken from whatever it stands in: the rest of that is not looked at.
    if kind == registered.kind.kind || call.info.subresource == "status" {
        return Ok(());
    }
    let expected = format!("must be {}", registered.kind.kind);
    let named = Named { group: &registered.kind.group, resource: kind, name: strategy::metadata_text(object, "name") };
    Err(ApiError::invalid(named, &[FieldError::invalid("kind", kind.into(), expected)]))
}

/// Both, of a patched object.
pub(super) fn check_type(call: &mut Call, object: &Value) -> Result<(), ApiError> {
    check_version(call, object, WriteOptions { field_validation: FieldValidation::Ignore, ..WriteOptions::default() })?;
    check_kind(call, object)
}

/// The namespace in the body must be the path's; a missing one is filled in.
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

/// Makes a new object.
pub(super) async fn create(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let object = decode(call, options)?;
    check_kind(call, &object)?;
    let told = strategy::warnings(&object, None);
    let made = create_object(call, object, Tracking::Update).await;
    // What is refused as invalid is not also warned of.
    if made.as_ref().err().is_none_or(|error| error.reason == "AlreadyExists") {
        call.warnings.extend(told);
    }
    call.answer(StatusCode::CREATED, made?)
}

/// Whether managedFields have been dealt with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// Not yet.
    Update,
    /// By server-side apply.
    Done,
}

/// Makes a new object from its decoded, pruned and defaulted form; returns what is stored.
pub(super) async fn create_object(call: &Call, object: Value, tracking: Tracking) -> Result<bytes::Bytes, ApiError> {
    let base = strategy::metadata_text(&object, "generateName").to_owned();
    let is_generated = strategy::metadata_text(&object, "name").is_empty() && !base.is_empty();
    if !is_generated {
        return try_create(call, object, None, tracking).await;
    }
    for _ in 1..NAME_ATTEMPTS {
        match try_create(call, object.clone(), Some(&base), tracking).await {
            Err(error) if error.reason == "AlreadyExists" => {}
            other => return other,
        }
    }
    try_create(call, object, Some(&base), tracking).await
}

async fn try_create(
    call: &Call,
    mut object: Value,
    generate_from: Option<&str>,
    tracking: Tracking,
) -> Result<bytes::Bytes, ApiError> {
    let registered = &call.registered;
    let cache = &call.shared().cache;
    check_namespace(call, &mut object)?;
    if let Some(base) = generate_from {
        let name = meta_validate::generate_name(base, five());
        strategy::metadata_mut(&mut object).insert("name".into(), name.into());
    }
    let now = call.time_text();
    // What does not fit the schema's structure (a status that is dropped below) is owned by nobody, as in Kubernetes.
    let is_typed = apply::fits(&registered.model, &object);
    let has_revision = !strategy::metadata_text(&object, "resourceVersion").is_empty();
    strategy::prepare_create(registered, &mut object, &Uuid::new_v4().to_string(), &now);
    if let Some(prepare) = &registered.kind.prepare {
        prepare(&mut object, None);
    }
    if tracking == Tracking::Update && is_typed {
        apply::track_update(&registered.model, None, &mut object, &writer(call, &call.manager(), &now));
    }
    if tracking == Tracking::Update && !is_typed {
        strategy::metadata_mut(&mut object).shift_remove("managedFields");
    }
    let name = strategy::metadata_text(&object, "name").to_owned();
    submit::validate(call, &object, None)?;
    if has_revision && tracking == Tracking::Update && call.query.text("dryRun").is_none() {
        return Err(ApiError::unclassified("resourceVersion should not be set on objects to be created"));
    }
    let key = call.key_of(&name);
    cache.catch_up().await?;
    loop {
        if let Some(there) = cache.kind(&registered.storage).get(key.as_str()) {
            if !call.is_shown(&there) {
                return Err(ApiError::conflict(call.named(&name), "the name is taken: choose another one"));
            }
            let mut error = ApiError::already_exists(call.named(&name));
            if there.is_deleting {
                error.message = format!("object is being deleted: {}", error.message);
            }
            return Err(error);
        }
        let guards = submit::guards(call, &name).await?;
        match submit::submit(call, &key, None, Some(&object), guards).await? {
            Submitted::Done(wire) => return Ok(wire),
            Submitted::ObjectChanged | Submitted::NamespaceChanged => {}
        }
    }
}

/// Who writes, for managedFields.
pub(super) fn writer<'a>(call: &'a Call, manager: &'a str, now: &'a str) -> Writer<'a> {
    Writer {
        manager,
        subresource: &call.info.subresource,
        api_version: &call.registered.api_version,
        has_status: call.registered.kind.subresources.status,
        now,
    }
}

/// Asks a virtual kind.
pub(super) async fn ask(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut object = decode(call, options)?;
    check_kind(call, &object)?;
    if call.registered.kind.is_namespaced() {
        check_namespace(call, &mut object)?;
    }
    let errors = call.registered.model.validate(&object, None);
    if !errors.is_empty() {
        return Err(ApiError::invalid(call.named_kind(strategy::metadata_text(&object, "name")), &errors));
    }
    let answer = call.registered.kind.answer.clone().ok_or_else(ApiError::no_such_path)?;
    let question = Question { identity: call.identity.clone(), namespace: call.info.namespace.clone(), object };
    let mut answered = answer.answer(question).await?;
    call.show(&mut answered);
    shape::value(&call.registered, call.accepted, &call.query, StatusCode::CREATED, &answered)
}
