//! `create`.

use http::{Response, StatusCode};
use rand_bytes::five;
use serde_json::Value;
use uuid::Uuid;

use super::call::Call;
use super::decode::{check_namespace, check_type, decode, writer};
use super::strategy;
use super::submit::{self, Submitted};
use crate::http::request::options::WriteOptions;
use crate::http::respond::shape;
use crate::object::apply;
use crate::object::body::ResponseBody;
use crate::object::error::ApiError;
use crate::object::meta_validate;
use crate::object::virtual_kind::Question;

/// Attempts with generated names before the create fails, as in Kubernetes.
const NAME_ATTEMPTS: usize = 8;

mod rand_bytes {
    /// Returns five random bytes from a random UUID.
    pub(super) fn five() -> [u8; 5] {
        let bytes = uuid::Uuid::new_v4().into_bytes();
        [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]
    }
}

/// Creates an object.
pub(super) async fn create(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let object = decode(call, options)?;
    let warnings = strategy::warnings(&call.registered, &object, None);
    let made = create_object(call, object, Tracking::Update).await;
    // Objects that are refused as invalid cause no warnings.
    if made.as_ref().err().is_none_or(|error| matches!(error.reason, "AlreadyExists" | "")) {
        call.warnings.extend(warnings);
    }
    call.answer(StatusCode::CREATED, made?)
}

/// How managedFields are updated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// By the create.
    Update,
    /// Server-side apply has already done it.
    Done,
}

/// Creates an object from its decoded, pruned and defaulted form; returns the stored form.
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
    check_type(call, &object, None)?;
    let now = call.time_text();
    // An object that does not fit the schema's structure (because of a status that is dropped below) has no field owners, as in
    // Kubernetes.
    let is_typed = apply::fits(&registered.model, &object);
    let is_generated_for = !strategy::metadata_text(&object, "generateName").is_empty();
    let revision = strategy::metadata_text(&object, "resourceVersion").to_owned();
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
    submit::validate(call, None, &object, None)?;
    let is_dry_run = call.query.text("dryRun").is_some();
    if !revision.is_empty() && tracking == Tracking::Update && !is_dry_run {
        return Err(ApiError::unclassified("resourceVersion should not be set on objects to be created"));
    }
    let key = call.key_of(&name);
    cache.catch_up().await?;
    loop {
        if let Some(existing) = cache.kind(&registered.storage).get(key.as_str()) {
            if !call.is_shown(&existing) {
                return Err(ApiError::conflict(call.named(&name), "the name is taken: choose another one"));
            }
            let mut error = ApiError::already_exists(call.named(&name));
            if is_generated_for {
                error.message += ", the server was not able to generate a unique name for the object";
                error.retry_after_seconds = 1;
            }
            if existing.is_deleting {
                error.message = format!("object is being deleted: {}", error.message);
            }
            return Err(error);
        }
        let guards = submit::guards(call, &name).await?;
        match submit::submit(call, &key, None, Some(&object), guards).await? {
            Submitted::Done(wire) if is_dry_run && !revision.is_empty() => {
                // In a dry run the store does not replace the client's resourceVersion.
                let mut shown: Value = serde_json::from_slice(&wire).map_err(ApiError::internal)?;
                strategy::metadata_mut(&mut shown).insert("resourceVersion".into(), revision.into());
                return Ok(serde_json::to_vec(&shown).map_err(ApiError::internal)?.into());
            }
            Submitted::Done(wire) => return Ok(wire),
            Submitted::ObjectChanged | Submitted::NamespaceChanged => {}
        }
    }
}

/// Answers a create of a virtual kind.
pub(super) async fn ask(call: &mut Call) -> Result<Response<ResponseBody>, ApiError> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let mut object = decode(call, options)?;
    check_type(call, &object, None)?;
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
