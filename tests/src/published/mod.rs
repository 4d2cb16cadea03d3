//! The published API beside that of the last release: what clients may rely on stays, or stands in the changelog.
//!
//! [`surface`] leaves of the OpenAPI documents what clients depend on, [`compare::incompatible`] names what a client of the last release
//! would miss, [`unlisted`] removes what the changelog lists.

pub mod compare;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The beginning of a changelog line that announces an incompatible change.
pub const LISTED_AS: &str = "- API, incompatible: ";

/// Texts for people, and what follows from the rest.
const LEFT_OUT: [&str; 7] =
    ["description", "message", "title", "example", "examples", "externalDocs", "x-kubernetes-group-version-kind"];

/// Schemas that are Kubernetes' own, not this API's.
const FOREIGN: &str = "io.k8s.apimachinery.";

/// Returns the parts that clients depend on, of the documents by their path (`apis/compute.evroclabs.net/v1alpha1`); sorted.
pub fn surface(documents: &BTreeMap<String, Value>) -> Value {
    let of_one = |document: &Value| {
        let paths: BTreeMap<&String, Value> =
            entries(&document["paths"]).map(|(path, item)| (path, operations(item))).collect();
        let own = entries(&document["components"]["schemas"]).filter(|(name, _)| !name.starts_with(FOREIGN));
        let schemas: BTreeMap<&String, Value> = own.map(|(name, schema)| (name, essence(schema))).collect();
        json!({"paths": paths, "schemas": schemas})
    };
    documents.iter().map(|(path, document)| (path.clone(), of_one(document))).collect::<Map<_, _>>().into()
}

/// The operations of a path in a line each: `list ?continue,limit` or `create ?dryRun < application/json`.
fn operations(item: &Value) -> Value {
    let names = |of: &Value| -> Vec<String> {
        let parameters = of["parameters"].as_array().into_iter().flatten();
        let named = parameters.filter(|it| it["in"] == "query").filter_map(|it| it["name"].as_str());
        named.map(str::to_owned).collect()
    };
    let common = names(item);
    let operations = entries(item).filter(|(_, it)| it.get("responses").is_some());
    let line = |operation: &Value| {
        let mut query: Vec<String> = common.iter().cloned().chain(names(operation)).collect();
        query.sort();
        let action = operation["x-kubernetes-action"].as_str().unwrap_or("-");
        let mut line = format!("{action} ?{}", query.join(","));
        let types: Vec<&str> = entries(&operation["requestBody"]["content"]).map(|(name, _)| name.as_str()).collect();
        if !types.is_empty() {
            line += &format!(" < {}", types.join(","));
        }
        line
    };
    operations
        .map(|(method, it)| (method.clone(), line(it).into()))
        .collect::<BTreeMap<String, Value>>()
        .into_iter()
        .collect()
}

/// A schema without texts, its keys sorted.
fn essence(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let mut out = Map::new();
            for (key, value) in sorted {
                if key == "properties" {
                    // Names of fields, which may be those of keywords.
                    let fields: BTreeMap<&String, Value> =
                        entries(value).map(|(name, it)| (name, essence(it))).collect();
                    out.insert(key.clone(), json!(fields));
                } else if !LEFT_OUT.contains(&key.as_str()) {
                    out.insert(key.clone(), essence(value));
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => items.iter().map(essence).collect(),
        other => other.clone(),
    }
}

pub(crate) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The changes that the changelog does not list under Unreleased, as the lines that it wants.
pub fn unlisted(changes: &[String], changelog: &str) -> Vec<String> {
    let section = changelog.split("\n## ").find(|it| it.starts_with("Unreleased")).unwrap_or_default();
    // A line of the changelog is broken where it is long.
    let collapsed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let listed = collapsed(section);
    let lines = changes.iter().map(|it| format!("{LISTED_AS}{it}."));
    lines.filter(|line| !listed.contains(&collapsed(line))).collect()
}
