//! OpenAPI v2 (Swagger), for older clients: kubectl before 1.24, and tools that validate with it.

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
