//! The schemas that the documents define, in the neutral form: Kubernetes' shared types, and every kind with its list.

use super::KindInfo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const PREFIX: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

pub(super) const API_VERSION_HELP: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
pub(super) const KIND_HELP: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA_HELP: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA_HELP: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The full name of a shared type: `ObjectMeta`, `Status`…
pub(super) fn shared(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// A reference in the neutral form.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": name})
}

/// Kubernetes' shared types from `k8s-openapi`, with the extensions for merging lists that it leaves out.
static SHARED: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let mut out = Map::new();
    let mut generator = SchemaGenerator::default();
    add::<v1::ObjectMeta>(&mut generator, &mut out);
    add::<v1::ListMeta>(&mut generator, &mut out);
    add::<v1::Status>(&mut generator, &mut out);
    add::<v1::DeleteOptions>(&mut generator, &mut out);
    add::<k8s_openapi::api::autoscaling::v1::Scale>(&mut generator, &mut out);
    let names: Vec<String> = generator.definitions().keys().cloned().collect();
    for name in names {
        if let Some(schema) = generator.definitions().get(&name) {
            out.insert(name, neutral(schema.clone()));
        }
    }
    out.insert(
        shared("Patch"),
        json!({"description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.", "type": "object"}),
    );
    for (name, field, extensions) in [
        ("ObjectMeta", "finalizers", json!({"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"})),
        (
            "ObjectMeta",
            "ownerReferences",
            json!({"x-kubernetes-list-map-keys": ["uid"], "x-kubernetes-list-type": "map", "x-kubernetes-patch-merge-key": "uid", "x-kubernetes-patch-strategy": "merge"}),
        ),
        ("ObjectMeta", "managedFields", json!({"x-kubernetes-list-type": "atomic"})),
        ("StatusDetails", "causes", json!({"x-kubernetes-list-type": "atomic"})),
        ("DeleteOptions", "dryRun", json!({"x-kubernetes-list-type": "atomic"})),
    ] {
        extend(&mut out, &shared(name), Some(field), extensions);
    }
    // A Status may have no metadata.
    if let Some(status) = out.get_mut(&shared("Status")).and_then(Value::as_object_mut) {
        status.shift_remove("required");
    }
    extend(&mut out, &shared("OwnerReference"), None, json!({"x-kubernetes-map-type": "atomic"}));
    for name in ["Status", "DeleteOptions"] {
        let gvk = json!({"x-kubernetes-group-version-kind": [{"group": "", "kind": name, "version": "v1"}]});
        extend(&mut out, &shared(name), None, gvk);
    }
    out
});

fn add<T: JsonSchema>(generator: &mut SchemaGenerator, out: &mut Map<String, Value>) {
    let schema = T::json_schema(generator);
    out.insert(T::schema_name().into_owned(), neutral(schema.to_value()));
}

fn extend(definitions: &mut Map<String, Value>, name: &str, field: Option<&str>, extensions: Value) {
    let definition = definitions.get_mut(name);
    let target = match field {
        None => definition,
        Some(field) => definition.and_then(|d| d.get_mut("properties")).and_then(|p| p.get_mut(field)),
    };
    if let (Some(target), Value::Object(extensions)) = (target.and_then(Value::as_object_mut), extensions) {
        target.extend(extensions);
    }
}

/// `#/$defs/NAME` becomes `NAME`.
fn neutral(mut schema: Value) -> Value {
    visit_references(&mut schema, &mut |name| {
        if let Some(bare) = name.strip_prefix("#/$defs/") {
            *name = bare.to_string();
        }
    });
    schema
}

/// Calls `visit` with every reference below.
pub(super) fn visit_references(value: &mut Value, visit: &mut dyn FnMut(&mut String)) {
    match value {
        Value::Object(map) => {
            for (key, entry) in map.iter_mut() {
                match entry {
                    Value::String(text) if key == "$ref" => visit(text),
                    other => visit_references(other, visit),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| visit_references(item, visit)),
        _ => {}
    }
}

/// Adds the shared types that `definitions` and `operations` refer to, directly or through other types.
pub(super) fn with_shared(definitions: &mut Map<String, Value>, operations: &[Value]) {
    let mut wanted: Vec<String> = Vec::new();
    let collect = |value: &Value, wanted: &mut Vec<String>| {
        visit_references(&mut value.clone(), &mut |name| wanted.push(name.clone()));
    };
    definitions.values().chain(operations).for_each(|value| collect(value, &mut wanted));
    while let Some(name) = wanted.pop() {
        if !definitions.contains_key(&name)
            && let Some(schema) = SHARED.get(&name)
        {
            collect(schema, &mut wanted);
            definitions.insert(name, schema.clone());
        }
    }
}

/// The version that a schema is written for: v2 cannot express everything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// Returns the schemas of a kind and of its list, in the neutral form.
pub(super) fn of_kind(info: &KindInfo<'_>, dialect: Dialect) -> [(String, Value); 2] {
    let mut schema = info.schema.clone();
    let keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if dialect == Dialect::V2 && keeps_unknown {
        // kubectl assumes that the declared properties are complete, and would refuse others.
        schema = json!({"type": "object"});
    } else {
        if dialect == Dialect::V2 {
            simplify(&mut schema);
        }
        embed(&mut schema, dialect);
        let properties = object(&mut schema).entry("properties").or_insert_with(|| json!({}));
        with_type_meta(object(properties), "ObjectMeta", METADATA_HELP);
    }
    let map = object(&mut schema);
    map.entry("type").or_insert_with(|| json!("object"));
    extensions(map, info, info.kind);

    let mut properties = json!({"items": {
        "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", info.plural),
        "type": "array", "items": reference(&info.model_name(info.kind))}});
    with_type_meta(object(&mut properties), "ListMeta", LIST_METADATA_HELP);
    let mut list = json!({"description": format!("{} is a list of {}", info.list_kind, info.kind), "type": "object", "required": ["items"], "properties": properties});
    extensions(object(&mut list), info, info.list_kind);
    [(info.model_name(info.kind), schema), (info.model_name(info.list_kind), list)]
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

fn with_type_meta(properties: &mut Map<String, Value>, metadata: &str, help: &str) {
    properties.insert("apiVersion".into(), json!({"description": API_VERSION_HELP, "type": "string"}));
    properties.insert("kind".into(), json!({"description": KIND_HELP, "type": "string"}));
    properties.insert("metadata".into(), json!({"description": help, "$ref": shared(metadata)}));
}

fn extensions(map: &mut Map<String, Value>, info: &KindInfo<'_>, kind: &str) {
    map.insert("x-kubernetes-group-version-kind".into(), json!([info.gvk(kind)]));
    if !info.selectable.is_empty() {
        let fields: Vec<Value> =
            info.selectable.iter().map(|path| json!({"fieldPath": path.strip_prefix('.').unwrap_or(path)})).collect();
        map.insert("x-kubernetes-selectable-fields".into(), Value::Array(fields));
    }
}

/// Adds type and metadata to embedded resources, and marks integers-or-strings where the dialect can express them.
fn embed(schema: &mut Value, dialect: Dialect) {
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(key).filter(|c| c.is_object()) {
            embed(child, dialect);
        }
    }
    for child in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        embed(child.1, dialect);
    }
    let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    if dialect == Dialect::V3 && flag("x-kubernetes-int-or-string") && schema.get("anyOf").is_none() {
        object(schema).insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
        return;
    }
    if !flag("x-kubernetes-embedded-resource")
        || (dialect == Dialect::V2 && flag("x-kubernetes-preserve-unknown-fields"))
    {
        return;
    }
    let map = object(schema);
    with_type_meta(object(map.entry("properties").or_insert_with(|| json!({}))), "ObjectMeta", METADATA_HELP);
    let required = map.entry("required").or_insert_with(|| json!([]));
    if let Some(required) = required.as_array_mut() {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|r| r == name) {
                required.push(json!(name));
            }
        }
    }
}

/// Removes from a schema what v2 cannot express or kubectl misreads.
pub(super) fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["allOf", "anyOf", "oneOf", "not", "default"] {
        map.shift_remove(key);
    }
    let flag = |map: &Map<String, Value>, key: &str| map.get(key) == Some(&Value::Bool(true));
    let nullable = flag(map, "nullable");
    let keeps_unknown = flag(map, "x-kubernetes-preserve-unknown-fields");
    // kubectl refuses a null where a type is given, and unknown fields where properties are given.
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
