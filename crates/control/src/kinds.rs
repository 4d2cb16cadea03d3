//! The kinds that this cloud serves: the definitions of `evroc-api`, with what a definition cannot say.

use std::sync::Arc;

use evroc_api::claims::Claim;
use evroc_api::compute::VirtualMachineSpec;
use evroc_api::run::ServiceSpec;
use evroc_apiserver::schema::FieldError;
use evroc_apiserver::{ClaimKey, ClaimRefusal, CrdError, ResourceKind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// All kinds that have a definition.
pub fn all() -> Result<Vec<ResourceKind>, CrdError> {
    let mut kinds = Vec::new();
    for definition in evroc_api::definitions() {
        let definition = serde_json::to_value(definition).map_err(CrdError::Malformed)?;
        let mut kind = ResourceKind::from_crd(&definition)?;
        match kind.qualified_plural().as_str() {
            "virtualmachines.compute.evroclabs.net" => {
                kind.claims = Some(Arc::new(|object| {
                    evroc_api::claims::of_virtual_machine(object).into_iter().map(claim).collect()
                }));
                kind.validate = Some(Arc::new(|new, old| {
                    let mut errors = problems(new, VirtualMachineSpec::problems);
                    errors.extend(old.map(|old| changes_refused(new, old)).unwrap_or_default());
                    errors
                }));
            }
            "services.run.evroclabs.net" => {
                kind.validate = Some(Arc::new(|new, _| problems(new, ServiceSpec::problems)))
            }
            _ => {}
        }
        kinds.push(kind);
    }
    Ok(kinds)
}

/// An address is the platform's to choose again; anything else is the user's.
fn claim(claim: Claim) -> ClaimKey {
    let refusal = if claim.field.starts_with("status.") { ClaimRefusal::Conflict } else { ClaimRefusal::Invalid };
    ClaimKey { key: claim.key, field: claim.field, what: claim.what, refusal }
}

/// Disks above all: one that was let go while a guest still writes to it could be given to another.
fn changes_refused(new: &Value, old: &Value) -> Vec<FieldError> {
    let spec = |object: &Value| VirtualMachineSpec::deserialize(object.get("spec")?).ok();
    let state = |object: &Value| Deserialize::deserialize(object.pointer("/status/virtualMachineStatus")?).ok();
    let (Some(new_spec), Some(old_spec)) = (spec(new), spec(old)) else { return vec![] };
    errors(new, new_spec.changes_refused(&old_spec, state(old)))
}

/// The schema was checked before; what does not even parse was refused there.
fn problems<S: DeserializeOwned>(object: &Value, check: fn(&S) -> Vec<(String, String)>) -> Vec<FieldError> {
    let Some(spec) = object.get("spec").and_then(|spec| S::deserialize(spec).ok()) else { return vec![] };
    errors(object, check(&spec))
}

fn errors(object: &Value, problems: Vec<(String, String)>) -> Vec<FieldError> {
    problems.into_iter().map(|(path, sentence)| FieldError::invalid(&path, value_at(object, &path), sentence)).collect()
}

/// The value at `spec.a[0].b`.
fn value_at(object: &Value, path: &str) -> Value {
    let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
    object.pointer(&pointer).cloned().unwrap_or(Value::Null)
}
