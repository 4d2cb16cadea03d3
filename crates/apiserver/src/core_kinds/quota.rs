//! ResourceQuota: limits on the number of objects; see [`crate::state::quota`].

use std::sync::Arc;

use serde_json::{Value, json};

use super::{age, object, schema};
use crate::object::field_error::FieldError;
use crate::object::kind::ResourceKind;
use crate::state::quota::{TAKEN, count};

pub(super) fn resource_quota() -> ResourceKind {
    let quantities = |description: &str| {
        json!({
            "type": "object", "description": description,
            "additionalProperties": {
                "x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}],
                "pattern": "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$",
            },
        })
    };
    let hard = "The most that there may be of each: `count/<plural>.<group>`, for example `count/disks.compute.evroclabs.net: 10`; bytes of memory (`requests.memory`) and of disks (`requests.storage`), for example `64Gi`.";
    let mut kind = ResourceKind::new(
        "",
        "v1",
        "ResourceQuota",
        "resourcequotas",
        schema(
            "Limits on how many objects there may be in a namespace.",
            json!({
                "spec": object("The limits.", json!({"hard": quantities(hard)})),
                "status": object(
                    "The limits, and the usage.",
                    json!({"hard": quantities("The limits."), "used": quantities("How many there are.")}),
                ),
            }),
        ),
    );
    kind.short_names = vec!["quota".into()];
    kind.columns = vec![age()];
    kind.subresources.status = true;
    kind.has_generation = false;
    kind.prepare = Some(Arc::new(|quota, _| numbers_to_texts(quota)));
    kind.validate = Some(Arc::new(|quota, _| problems(quota)));
    kind
}

/// Converts quantities to strings, which is their stored form, as in Kubernetes.
fn numbers_to_texts(quota: &mut Value) {
    for quantity in
        quota.pointer_mut("/spec/hard").and_then(Value::as_object_mut).into_iter().flat_map(|it| it.values_mut())
    {
        if let Value::Number(number) = quantity {
            *quantity = number.to_string().into();
        }
    }
}

fn problems(quota: &Value) -> Vec<FieldError> {
    let hard = quota.pointer("/spec/hard").and_then(Value::as_object);
    let is_wrong = |(name, quantity): &(&String, &Value)| {
        let is_count =
            name.starts_with("count/") || matches!(name.as_str(), "configmaps" | "secrets" | "resourcequotas");
        (is_count || TAKEN.contains(&name.as_str())) && count(quantity).is_none()
    };
    let wrong = hard.into_iter().flatten().filter(is_wrong);
    wrong
        .map(|(name, quantity)| {
            FieldError::invalid(format!("spec.hard[{name}]"), quantity.clone(), "must be a whole number from 0 on")
        })
        .collect()
}
