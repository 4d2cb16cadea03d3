//! OpenAPI v2 (Swagger), for old clients: kubectl before 1.24, and everything that validates with it.

use super::KindInfo;
use super::definitions::{self, Dialect, visit_references};
use super::operations::{self, Operation, PRETTY, path_parameters};
use serde_json::{Map, Value, json};

pub(super) fn document(title: &str, version: &str, kinds: &[KindInfo<'_>]) -> Value {
    let mut schemas = Map::new();
    let mut paths: Map<String, Value> = Map::new();
    for info in kinds {
        schemas.extend(definitions::of_kind(info, Dialect::V2));
        for operation in operations::of_kind(info) {
            let item = paths.entry(operation.path.clone()).or_insert_with(|| {
                let parameters: Vec<Value> = path_parameters(&operation.path, info.kind)
                    .into_iter()
                    .map(|(name, help)| json!({"uniqueItems": true, "type": "string", "description": help, "name": name, "in": "path", "required": true}))
                    .chain([query(&PRETTY)])
                    .collect();
                json!({"parameters": parameters})
            });
            item[operation.method] = write(&operation);
        }
    }
    let all: Vec<Value> = paths.values().cloned().collect();
    definitions::with_shared(&mut schemas, &all);
    schemas.sort_keys();
    paths.sort_keys();
    let mut document = json!({
        "swagger": "2.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "definitions": schemas,
        "securityDefinitions": {"BearerToken": {"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header"}},
        "security": [{"BearerToken": []}],
    });
    visit_references(&mut document, &mut |name| *name = format!("#/definitions/{name}"));
    document
}

fn query(parameter: &operations::Parameter) -> Value {
    json!({"uniqueItems": true, "type": parameter.kind, "description": parameter.help, "name": parameter.name, "in": "query"})
}

fn write(operation: &Operation) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    if let Some((schema, required, _)) = &operation.body {
        let mut body = json!({"name": "body", "in": "body", "schema": schema});
        if *required {
            body["required"] = json!(true);
        }
        parameters.push(body);
    }
    parameters.extend(operation.parameters.iter().map(query));
    let mut responses: Map<String, Value> = operation
        .responses
        .iter()
        .map(|(code, name, schema)| (code.to_string(), json!({"description": name, "schema": schema})))
        .collect();
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let consumes = match &operation.body {
        Some((_, _, types)) => types.clone(),
        None => vec!["application/json", "application/yaml"],
    };
    json!({
        "description": operation.description, "consumes": consumes, "produces": ["application/json", "application/yaml"],
        "schemes": ["https"], "tags": [operation.tag], "operationId": operation.id, "parameters": parameters,
        "responses": responses, "x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": operation.gvk,
    })
}

/// Takes out of a schema what v2 cannot say or kubectl misreads there.
pub(super) fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["allOf", "anyOf", "oneOf", "not", "default"] {
        map.shift_remove(key);
    }
    let flag = |map: &Map<String, Value>, key: &str| map.get(key) == Some(&Value::Bool(true));
    let nullable = flag(map, "nullable");
    let keeps_unknown = flag(map, "x-kubernetes-preserve-unknown-fields");
    // A null is refused where a type is given, and unknown fields where properties are.
    if nullable {
        map.shift_remove("type");
        map.shift_remove("nullable");
    }
    if nullable || keeps_unknown {
        map.shift_remove("items");
        map.shift_remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
    if (kind == "array" && !map.contains_key("items")) || (kind == "object" && keeps_unknown) {
        map.shift_remove("type");
    }
    let nullable_fields: Vec<String> = map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, schema)| schema.get("nullable") == Some(&Value::Bool(true)))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !nullable_fields.iter().any(|n| name == n));
        if required.is_empty() {
            map.shift_remove("required");
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = map.get_mut(key) {
            simplify(child);
        }
    }
    for (_, child) in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        simplify(child);
    }
}
