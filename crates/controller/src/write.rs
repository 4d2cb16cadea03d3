//! The writes that reconciliations are made of. Each is safe to repeat.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{PartialObjectMetaExt, Status};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Context, Error, Result, api_error, events};

/// The reason of the cause in a refusal by a ledger.
const INSUFFICIENT_CAPACITY: &str = "InsufficientCapacity";
/// The reason of the cause in a refusal because of a claim.
const HELD: &str = "FieldValueForbidden";

/// Whether an object can have this name. The client library puts names into paths as they are, so that `a?x` or `a/status` would read
/// another object than the one that is named.
fn can_be_a_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    !name.is_empty() && !matches!(name, "." | "..") && name.bytes().all(is_part)
}

/// Reads one object; `None` when there is none. A name may come from another object's spec: one that no object can have is that of none.
pub async fn get<K>(api: &Api<K>, name: &str) -> Result<Option<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    if !can_be_a_name(name) {
        return Ok(None);
    }
    api.get_opt(name).await.map_err(api_error(format!("read {name}")))
}

/// Writes `status` where it differs from the object's; returns whether it wrote. Optimistic: a lost race is [`Error::Changed`].
pub async fn write_status<K>(api: &Api<K>, object: &K, status: &impl Serialize) -> Result<bool>
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    replace_status(api, object, status).await.map(|written| written.is_some())
}

/// As [`write_status`], with an event for users where the condition Ready changes: a Warning if `is_failure` holds for the
/// reason why it is not True.
pub async fn report_status<K>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    status: &impl Serialize,
    is_failure: impl Fn(&str) -> bool,
) -> Result<bool>
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    let Some((old, new)) = replace_status(api, object, status).await? else { return Ok(false) };
    let is_failure = events::reason_against(&new).is_some_and(is_failure);
    events::record(context.client.clone(), &old, &new, is_failure, (context.clock)()).await;
    Ok(true)
}

/// The object before and after the write, or `None` if there was nothing to write.
async fn replace_status<K>(api: &Api<K>, object: &K, status: &impl Serialize) -> Result<Option<(Value, Value)>>
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    let operation = format!("write status of {}", object.name_any());
    let json = |source| Error::Json { operation: operation.clone(), source };
    let mut new = serde_json::to_value(object).map_err(json)?;
    let status = serde_json::to_value(status).map_err(json)?;
    if new.get("status").unwrap_or(&Value::Null) == &status {
        return Ok(None);
    }
    let old = new.clone();
    new["status"] = status;
    let written: K = serde_json::from_value(new.clone()).map_err(json)?;
    match api.replace_status(&object.name_any(), &PostParams::default(), &written).await {
        Ok(_) => Ok(Some((old, new))),
        // It was deleted after it was read: the next look finds that out.
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Error::Changed(operation)),
        Err(error) => Err(api_error(operation)(error)),
    }
}

/// Creates an object with a name that follows from its owner. One that exists already is adopted: a crash after an
/// earlier create makes no duplicate.
pub async fn create_or_adopt<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    create(api, object).await.map(drop)
}

/// As [`create_or_adopt`]; returns the created object.
pub(crate) async fn create<K>(api: &Api<K>, object: &K) -> Result<Option<K>>
where
    K: Resource + Clone + Serialize + DeserializeOwned + Debug,
{
    match api.create(&PostParams::default(), object).await {
        Ok(created) => Ok(Some(created)),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(None),
        Err(kube::Error::Api(status)) if let Some(message) = full(&status) => {
            Err(Error::Full { operation: format!("create {}", object.name_any()), message })
        }
        Err(kube::Error::Api(status)) if let Some((field, message)) = held(&status) => {
            Err(Error::Held { operation: format!("create {}", object.name_any()), field, message })
        }
        Err(kube::Error::Api(status)) if status.code == 422 => {
            Err(Error::Refused { operation: format!("create {}", object.name_any()), message: status.message.clone() })
        }
        Err(error) => Err(api_error(format!("create {}", object.name_any()))(error)),
    }
}

/// Whether the answer is that a ledger has no room.
fn full(status: &Status) -> Option<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().find(|cause| cause.reason == INSUFFICIENT_CAPACITY).map(|cause| cause.message.clone())
}

/// The field and the message, if the answer is that another object holds what the platform chose.
fn held(status: &Status) -> Option<(String, String)> {
    let causes = status.details.iter().flat_map(|details| &details.causes).filter(|_| status.code == 409);
    causes.into_iter().find(|cause| cause.reason == HELD).map(|cause| (cause.field.clone(), cause.message.clone()))
}

/// Deletes the very object that was observed, not one of the same name that came later.
pub async fn delete_if_present<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    delete(api, object, None).await.map(drop)
}

/// As [`delete_if_present`]; returns the object as the deletion left it. With a version: only if it is still at that.
pub(crate) async fn delete<K>(api: &Api<K>, object: &K, version: Option<String>) -> Result<Option<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if object.meta().deletion_timestamp.is_some() {
        return Ok(None);
    }
    let only_this = DeleteParams {
        preconditions: Some(Preconditions { uid: object.uid(), resource_version: version }),
        ..DeleteParams::default()
    };
    match api.delete(&object.name_any(), &only_this).await {
        Ok(answer) => Ok(answer.left()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(api_error(format!("delete {}", object.name_any()))(error)),
    }
}

/// The owner reference from a controller's child to `owner`. A deletion of the owner in the foreground waits for the child.
pub fn owned_by<K: Resource<DynamicType = ()>>(owner: &K) -> Option<Vec<OwnerReference>> {
    let reference = owner.controller_owner_ref(&())?;
    Some(vec![OwnerReference { block_owner_deletion: Some(true), ..reference }])
}

/// Adds a finalizer where it is missing.
pub async fn add_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if object.finalizers().iter().any(|f| f == finalizer) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    write_finalizers(api, object, finalizers).await
}

/// Removes a finalizer where it is present; an object that was deleted needs none.
pub async fn remove_finalizer<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    if !object.finalizers().iter().any(|f| f == finalizer) {
        return Ok(());
    }
    let finalizers = object.finalizers().iter().filter(|f| *f != finalizer).cloned().collect();
    write_finalizers(api, object, finalizers).await
}

/// A list of finalizers is written whole, so the write holds only for the version that it was read from.
async fn write_finalizers<K>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let meta = kube::core::ObjectMeta {
        finalizers: Some(finalizers),
        resource_version: object.resource_version(),
        ..Default::default()
    };
    let patch = meta.into_request_partial::<K>();
    match api.patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(api_error(format!("write finalizers of {}", object.name_any()))(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::can_be_a_name;

    #[test]
    fn a_text_that_would_change_the_path_is_no_name() {
        for name in ["a", "tiny.1-0.1", "system:node:a", "a_b"] {
            assert!(can_be_a_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/status", "a?x", "a#b", "a%2f", "a b", "ä"] {
            assert!(!can_be_a_name(name), "{name}");
        }
    }
}
