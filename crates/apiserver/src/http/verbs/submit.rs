//! Submits a prepared object to the store: validation, the namespace's state, claims, the transaction.

use bytes::Bytes;
use serde_json::Value;

use super::call::Call;
use super::delete_options::DeleteOptions;
use super::{decode, strategy};
use crate::object::error::{ApiError, Cause, Named};
use crate::object::field_error::FieldError;
use crate::object::go_text::go_number;
use crate::object::kind::{ClaimKey, ClaimRefusal, ScalePaths, Take};
use crate::object::meta_validate;
use crate::object::registry::GroupResource;
use crate::state::commit::{self, Outcome, Write, WriteError};
use crate::state::ledgers::{self, Guard, LedgerError};
use crate::state::quota::{self, QuotaError};
use crate::state::storage::claims::{Holder, Ledger};
use crate::state::storage::encoding;
use crate::state::storage::keys::{self, ObjectKey};

/// The reason of the cause of a conflict for lack of room in a ledger: the component that placed the object can choose again.
const INSUFFICIENT_CAPACITY: &str = "InsufficientCapacity";

/// The stored state that a write replaces.
pub(super) struct Live {
    /// In this kind's form.
    pub(super) object: Value,
    /// The revision that wrote it.
    pub(super) revision: u64,
}

/// The outcome of a write.
pub(super) enum Submitted {
    /// Written (or checked, in a dry run): the object for the client.
    Done(Bytes),
    /// The object has changed; read it again.
    ObjectChanged,
    /// The namespace or its quota has changed; read it again.
    NamespaceChanged,
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Store(error) => error.into(),
            WriteError::Cache(error) => error.into(),
        }
    }
}

/// Returns the stored state of an object.
pub(super) fn load(call: &Call, key: &ObjectKey) -> Option<Live> {
    let cached = call.shared().cache.kind(&call.registered.storage).get(key.as_str())?;
    if !call.is_shown(&cached) {
        return None;
    }
    let stored = cached.parse();
    let object = match &call.registered.kind.shared_storage {
        None => stored,
        Some(shared) => (shared.from_stored)(&stored),
    };
    Some(Live { object, revision: cached.revision })
}

/// Validates an object and returns all errors. `sent` is the object that the client sent, if that is of another kind.
pub(super) fn validate(call: &Call, sent: Option<&Value>, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let registered = &call.registered;
    let mut errors: Vec<FieldError> = meta_validate::validate_metadata(object, old, registered.kind.is_namespaced());
    if old.is_some() {
        // Kubernetes validates an update twice and the new metadata once more; clients see each cause as often.
        errors.extend(errors.clone());
        errors.extend(meta_validate::validate_metadata(object, None, registered.kind.is_namespaced()));
    }
    let is_status = call.info.subresource == "status";
    let mut of_schema = match old {
        Some(old) if is_status => registered.model.validate_status_after(object, old, &errors),
        old => registered.model.validate_after(object, old, &errors),
    };
    if is_status {
        // The status is validated as a document of its own: the message has the path within it, the field the path in the object.
        for error in &mut of_schema {
            let within = match error.path.as_str() {
                "status" => error.detail.strip_prefix("status").filter(|rest| rest.starts_with(" in body")),
                path if path.starts_with("status.") => error.detail.strip_prefix("status."),
                _ => None,
            };
            if let Some(rest) = within {
                error.detail = rest.to_owned();
            }
        }
    }
    errors.extend(of_schema);
    errors.extend(registered.kind.subresources.scale.iter().flat_map(|paths| scale_errors(object, paths)));
    if let Some(validate) = &registered.kind.validate
        && errors.is_empty()
    {
        errors.extend(validate(object, old));
    }
    if errors.is_empty() {
        return Ok(());
    }
    match sent {
        Some(sent) => Err(decode::refuse_object(sent, &errors)),
        None => Err(ApiError::invalid(call.named_kind(strategy::metadata_text(object, "name")), &errors)),
    }
}

/// Checks that the values of the scale subresource are integers, independently of the schema.
fn scale_errors(object: &Value, paths: &ScalePaths) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for path in [&paths.spec_replicas_path, &paths.status_replicas_path] {
        let mut refuse = |value: i64, why: String| errors.push(FieldError::invalid(path, value.into(), why));
        let found = path.split('.').filter(|it| !it.is_empty()).try_fold(Some(object), |at, part| match at {
            Some(Value::Object(map)) => Ok(map.get(part)),
            Some(Value::Null) | None => Ok(None),
            Some(other) => Err(other),
        });
        let found = match found {
            Ok(found) => found,
            Err(other) => {
                let (text, of) = go_form(other);
                refuse(
                    0,
                    format!("{path} accessor error: {text} is of the type {of}, expected map[string]interface{{}}"),
                );
                continue;
            }
        };
        match found.map(|it| (it, it.as_i64())) {
            None => {}
            Some((_, Some(count))) if count < 0 => refuse(count, "should be a non-negative integer".into()),
            Some((_, Some(count))) if count > i64::from(i32::MAX) => {
                refuse(count, format!("should be less than or equal to {}", i32::MAX));
            }
            Some((_, Some(_))) => {}
            Some((other, None)) => {
                let (text, of) = go_form(other);
                refuse(0, format!("{path} accessor error: {text} is of the type {of}, expected int64"));
            }
        }
    }
    errors
}

/// Returns a value in Go's form, and the name of its type in Go.
fn go_form(value: &Value) -> (String, &'static str) {
    match value {
        Value::String(text) => (text.clone(), "string"),
        Value::Bool(_) => (value.to_string(), "bool"),
        Value::Number(number) if number.is_i64() => (go_number(number), "int64"),
        Value::Number(number) => (go_number(number), "float64"),
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Array(_) => (value.to_string(), "[]interface {}"),
        Value::Object(_) => (value.to_string(), "map[string]interface {}"),
    }
}

/// Returns the namespace's key and revision. An error if it does not exist or accepts no new objects.
fn namespace_guard(call: &Call, name: &str) -> Result<Option<(Bytes, u64)>, ApiError> {
    if !call.registered.kind.is_namespaced() || call.shared().registry.find("", "v1", "namespaces").is_none() {
        return Ok(None);
    }
    let storage = GroupResource { group: String::new(), resource: "namespaces".into() };
    let namespace = &call.info.namespace;
    let key = ObjectKey::new("", namespace);
    let Some(found) = call.shared().cache.kind(&storage).get(key.as_str()) else {
        let name = call.info.shown_namespace();
        return Err(ApiError::not_found(Named { group: "", resource: "namespaces", name }));
    };
    if found.is_deleting {
        let namespace = call.info.shown_namespace();
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(call.named(name), why);
        error.causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        });
        return Err(error);
    }
    Ok(Some((keys::object(&storage, &key), found.revision)))
}

/// The state that a create depends on besides its own key.
#[derive(Default)]
pub(super) struct Guards {
    namespace: Option<(Bytes, u64)>,
    ledger: Option<Ledger>,
}

/// Reads the state of the namespace and its quotas that a create depends on.
pub(super) async fn guards(call: &Call, name: &str) -> Result<Guards, ApiError> {
    let namespace = namespace_guard(call, name)?;
    let found = quota::check(&call.shared().cache, &call.registered, call.key_of(name).namespace()).await;
    match found {
        Ok(ledger) => Ok(Guards { namespace, ledger }),
        Err(QuotaError::Exceeded(why)) => Err(ApiError::forbidden(call.named(name), why)),
        Err(QuotaError::Cache(error)) => Err(error.into()),
    }
}

/// Writes an object (`None` removes it) in place of `live`.
pub(super) async fn submit(
    call: &Call,
    key: &ObjectKey,
    live: Option<&Live>,
    object: Option<&Value>,
    guards: Guards,
) -> Result<Submitted, ApiError> {
    let registered = &call.registered;
    let kind = &registered.kind;
    let dry_run = is_dry_run(call);
    if let Some((filter, object)) = call.info.filter.as_ref().zip(object)
        && !filter.matches(object)
    {
        return Err(ApiError::forbidden(call.named(key.name()), filter.refusal(object)));
    }
    let subject = object.or(live.map(|it| &it.object)).unwrap_or(&Value::Null);
    let holder = Holder {
        kind: kind.kind.clone(),
        namespace: key.namespace().into(),
        name: key.name().into(),
        uid: strategy::metadata_text(subject, "uid").into(),
    };
    let claims_of = |object: Option<&Value>| -> Vec<ClaimKey> {
        kind.claims.as_ref().zip(object).map(|(claims, object)| claims(object)).unwrap_or_default()
    };
    let encoded = object.map(|object| match &kind.shared_storage {
        None => encoding::encode(object),
        Some(shared) => encoding::encode(&(shared.to_stored)(object)),
    });
    let cache = &call.shared().cache;
    let ended = live.filter(|_| object.is_none() && quota::is_quota(kind));
    let mut closed = ended.map(|live| quota::ledgers_of(cache, &live.object)).unwrap_or_default();
    closed.extend(ended.and_then(|live| ledgers::limited_by(&live.object)));
    if object.is_none()
        && kind.gives.is_some()
        && let Some(giver) = cache.kind(&registered.storage).get(key.as_str())
    {
        closed.extend(ledgers::given_by(&giver.gives));
    }
    let Guard { mut ledgers, givers: mut unchanged, under_way } =
        ledger_guard(call, key, live, object, encoded.as_deref(), &holder, dry_run).await?;
    for (name, revision) in emptied_ledgers(call, key, live, object, encoded.as_deref())? {
        unchanged.insert(keys::claim(&name), revision);
        closed.push(name);
    }
    ledgers.extend(guards.ledger);
    let write = Write {
        key: keys::object(&registered.storage, key),
        expected: live.map(|it| it.revision),
        value: encoded.clone(),
        namespace: guards.namespace,
        ledgers: &ledgers,
        unchanged: &unchanged,
        closed_ledgers: &closed,
        claims: &claims_of(object),
        released: &claims_of(live.map(|it| &it.object)),
        holder: &holder,
        dry_run,
    };
    let shared = call.shared();
    match commit::commit(&*shared.store, &shared.cache, &write, under_way).await? {
        Outcome::Written(revision) => Ok(Submitted::Done(match encoded {
            Some(encoded) if revision > 0 => encoding::at_revision(&encoded, revision),
            Some(encoded) => without_revision(&encoded),
            None => Bytes::new(),
        })),
        Outcome::ObjectChanged => Ok(Submitted::ObjectChanged),
        Outcome::NamespaceChanged => Ok(Submitted::NamespaceChanged),
        Outcome::Held { claim, by } => Err(held(call, key, &claim, &by)),
    }
}

/// Checks what the object takes from ledgers; returns what the transaction must find unchanged. Kinds that take nothing, and changes
/// of anything but `spec`, cost nothing.
async fn ledger_guard(
    call: &Call,
    key: &ObjectKey,
    live: Option<&Live>,
    object: Option<&Value>,
    encoded: Option<&[u8]>,
    holder: &Holder,
    dry_run: bool,
) -> Result<Guard, ApiError> {
    let (Some(takes), Some(object), Some(encoded)) = (&call.registered.kind.takes, object, encoded) else {
        return Ok(Guard::default());
    };
    if live.is_some_and(|live| live.object.get("spec") == object.get("spec")) {
        return Ok(Guard::default());
    }
    let cache = &call.shared().cache;
    let new = takes(encoded).map_err(ApiError::internal)?;
    // Writes since `live` was read fail the transaction.
    let stored = live.and_then(|_| cache.kind(&call.registered.storage).get(key.as_str()));
    let old: &[Take] = stored.as_ref().map_or(&[], |stored| &stored.takes);
    ledgers::check(cache, &new, old, holder, dry_run).await.map_err(|error| match error {
        LedgerError::Cache(error) => error.into(),
        LedgerError::Limited { field, message } => {
            ApiError::invalid(call.named_kind(key.name()), &[FieldError::forbidden(&field, message)])
        }
        LedgerError::Exceeded { field, message } => {
            let mut error = ApiError::conflict(call.named(key.name()), format!("{field}: {message}"));
            error.causes.push(Cause { reason: INSUFFICIENT_CAPACITY.into(), message, field });
            error
        }
    })
}

/// The ledgers that end with this write: see [`ledgers::emptied`].
fn emptied_ledgers(
    call: &Call,
    key: &ObjectKey,
    live: Option<&Live>,
    object: Option<&Value>,
    encoded: Option<&[u8]>,
) -> Result<Vec<(String, u64)>, ApiError> {
    let (Some(takes), Some(live)) = (&call.registered.kind.takes, live) else { return Ok(vec![]) };
    if object.is_some_and(|object| live.object.get("spec") == object.get("spec")) {
        return Ok(vec![]);
    }
    let cache = &call.shared().cache;
    let Some(stored) = cache.kind(&call.registered.storage).get(key.as_str()) else { return Ok(vec![]) };
    let new = match encoded.filter(|_| stored.takes.iter().any(|take| take.limit.is_some())) {
        Some(encoded) => takes(encoded).map_err(ApiError::internal)?,
        None => vec![],
    };
    Ok(ledgers::emptied(cache, &new, &stored.takes))
}

/// Whether this is a dry run. The parameters have been checked before.
fn is_dry_run(call: &Call) -> bool {
    match call.info.verb {
        "delete" | "deletecollection" => DeleteOptions::read(call).is_ok_and(|options| options.dry_run),
        _ => call.query.text("dryRun").is_some(),
    }
}

/// Returns an object without resourceVersion, as a dry run responds.
fn without_revision(encoded: &[u8]) -> Bytes {
    let mut object: Value = serde_json::from_slice(encoded).unwrap_or_default();
    strategy::metadata_mut(&mut object).shift_remove("resourceVersion");
    serde_json::to_vec(&object).unwrap_or_default().into()
}

fn held(call: &Call, key: &ObjectKey, claim: &ClaimKey, by: &Holder) -> ApiError {
    let is_elsewhere = !by.namespace.is_empty() && by.namespace != call.info.namespace;
    let holder = match by.namespace.as_str() {
        "" => format!("{} {:?}", by.kind, by.name),
        // A view does not reveal other namespaces.
        _ if is_elsewhere && call.info.view.is_some() => format!("a {} in another namespace", by.kind),
        namespace if is_elsewhere => format!("{} {:?} in namespace {namespace:?}", by.kind, by.name),
        _ => format!("{} {:?} in namespace {:?}", by.kind, by.name, call.info.shown_namespace()),
    };
    let why = format!("{} is in use by {holder}", claim.what);
    match claim.refusal {
        ClaimRefusal::Invalid => {
            let error = FieldError::forbidden(&claim.field, why);
            ApiError::invalid(call.named_kind(key.name()), &[error])
        }
        ClaimRefusal::Conflict => {
            let mut error = ApiError::conflict(call.named(key.name()), format!("{}: {why}", claim.field));
            error.causes.push(Cause { reason: "FieldValueForbidden".into(), message: why, field: claim.field.clone() });
            error
        }
    }
}
