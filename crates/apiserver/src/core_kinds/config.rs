//! ConfigMap and Secret.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{age, column, schema, string, string_map};
use crate::object::field_error::FieldError;
use crate::object::kind::ResourceKind;

/// Kubernetes' limit on the data of one ConfigMap or Secret.
const DATA_LIMIT: usize = 1 << 20;

pub(super) fn config_map() -> ResourceKind {
    let mut kind = ResourceKind::new(
        "",
        "v1",
        "ConfigMap",
        "configmaps",
        schema(
            "Settings for programs.",
            json!({
                "data": string_map("Texts by key."),
                "binaryData": {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}, "description": "Bytes by key, in base64."},
                "immutable": {"type": "boolean", "description": "If true, data cannot be changed."},
            }),
        ),
    );
    kind.short_names = vec!["cm".into()];
    kind.columns = vec![age()];
    kind.has_generation = false;
    kind.validate = Some(Arc::new(validate));
    kind
}

pub(super) fn secret() -> ResourceKind {
    let mut kind = ResourceKind::new(
        "",
        "v1",
        "Secret",
        "secrets",
        schema(
            "Settings that are not for everybody's eyes.",
            json!({
                "type": string("The purpose of the data; Opaque by default."),
                "data": {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}, "description": "Bytes by key, in base64."},
                "stringData": string_map("Texts by key; folded into data when written, never read back."),
                "immutable": {"type": "boolean", "description": "If true, data cannot be changed."},
            }),
        ),
    );
    kind.columns = vec![column("Type", "string", ".type", 0), age()];
    kind.selectable_fields = vec![".type".into()];
    kind.has_generation = false;
    kind.prepare = Some(Arc::new(|object, _| fold_string_data(object)));
    kind.validate = Some(Arc::new(validate));
    kind
}

fn fold_string_data(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    let texts = map.shift_remove("stringData");
    map.entry("type").or_insert_with(|| "Opaque".into());
    let Some(Value::Object(texts)) = texts else { return };
    let data = map.entry("data").or_insert_with(|| json!({}));
    if data.is_null() {
        *data = json!({});
    }
    for (key, text) in texts {
        data[key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
    }
}

fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in new.get(field).and_then(Value::as_object).into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            let is_key = !key.is_empty()
                && key.len() <= 253
                && key.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it))
                && key != "."
                && !key.starts_with("..");
            if !is_key {
                errors.push(FieldError::invalid(
                    format!("{field}[{key}]"),
                    key.clone().into(),
                    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ));
            }
        }
    }
    if size > DATA_LIMIT {
        errors.push(FieldError::too_long("data", DATA_LIMIT));
    }
    let Some(old) = old else { return errors };
    if old.get("immutable") == Some(&Value::Bool(true)) {
        for field in ["immutable", "data", "binaryData"] {
            if new.get(field) != old.get(field) {
                errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
    if old.get("type").is_some() && new.get("type") != old.get("type") {
        errors.push(FieldError::invalid("type", new.get("type").cloned().unwrap_or_default(), "field is immutable"));
    }
    errors
}
