//! OpenAPI v3.

use super::KindInfo;
use super::definitions::{self, Dialect};
use super::operations::{self, Operation, PRETTY, path_parameters};
use serde_json::{Map, Value, json};

pub(super) fn document(title: &str, version: &str, kinds: &[KindInfo<'_>]) -> Value {
    let mut schemas = Map::new();
    let mut paths: Map<String, Value> = Map::new();
    for info in kinds {
        schemas.extend(definitions::of_kind(info, Dialect::V3));
        for operation in operations::of_kind(info) {
            let item = paths.entry(operation.path.clone()).or_insert_with(|| {
                let parameters: Vec<Value> = path_parameters(&operation.path, info.kind)
                    .into_iter()
                    .map(|(name, help)| json!({"name": name, "in": "path", "description": help, "required": true, "schema": {"type": "string", "uniqueItems": true}}))
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
        "openapi": "3.0.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    });
    write_references(&mut document);
    document
}

fn query(parameter: &operations::Parameter) -> Value {
    json!({"name": parameter.name, "in": "query", "description": parameter.help, "schema": {"type": parameter.kind, "uniqueItems": true}})
}

fn write(operation: &Operation) -> Value {
    let content = |types: &[&str], schema: &Value| -> Value {
        types.iter().map(|t| (t.to_string(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
    };
    let mut responses = Map::new();
    for (code, name, schema) in &operation.responses {
        let content = content(&["application/json", "application/yaml"], schema);
        responses.insert(code.to_string(), json!({"description": name, "content": content}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let mut out = json!({"tags": [operation.tag], "description": operation.description, "operationId": operation.id});
    if !operation.parameters.is_empty() {
        out["parameters"] = operation.parameters.iter().map(query).collect();
    }
    if let Some((schema, required, types)) = &operation.body {
        let mut body = json!({"content": content(types, schema)});
        if *required {
            body["required"] = json!(true);
        }
        out["requestBody"] = body;
    }
    out["responses"] = Value::Object(responses);
    out["x-kubernetes-action"] = json!(operation.action);
    out["x-kubernetes-group-version-kind"] = operation.gvk.clone();
    out
}

/// Writes references for v3, which allows no siblings: a reference with siblings is wrapped.
fn write_references(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(write_references);
            if let Some(Value::String(name)) = map.get("$ref") {
                let reference = json!({"$ref": format!("#/components/schemas/{name}")});
                if map.len() == 1 {
                    *value = reference;
                } else {
                    map.shift_remove("$ref");
                    map.insert("allOf".into(), json!([reference]));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_references),
        _ => {}
    }
}
