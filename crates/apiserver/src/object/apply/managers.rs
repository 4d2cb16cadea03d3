//! `metadata.managedFields`: which manager owns which fields.

use super::set::FieldSet;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The identity of a manager. For appliers it does not depend on the version that they apply with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ManagerId {
    pub name: String,
    pub operation: Operation,
    /// Empty for appliers.
    pub api_version: String,
    pub subresource: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// The fields that a manager owns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owned {
    pub fields: FieldSet,
    pub api_version: String,
    /// RFC 3339; an entry without a time counts as the oldest.
    pub time: Option<String>,
}

pub(super) type Managers = BTreeMap<ManagerId, Owned>;

impl ManagerId {
    /// As in conflict messages: `"kubectl-edit" using v1`.
    pub(super) fn describe(&self) -> String {
        let mut out = crate::object::go_text::go_quote(&self.name);
        if !self.subresource.is_empty() {
            out += &format!(" with subresource {}", crate::object::go_text::go_quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            out += &format!(" using {}", self.api_version);
        }
        out
    }
}

/// `None` if the entries are not of the right form.
pub(super) fn decode(object: &Value) -> Option<Managers> {
    let mut out = Managers::new();
    let Some(entries) = object.pointer("/metadata/managedFields").filter(|v| !v.is_null()) else { return Some(out) };
    for entry in entries.as_array()? {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if text("fieldsType") != "FieldsV1" {
            return None;
        }
        let fields = match entry.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::from_fields_v1(fields)?,
        };
        let id = ManagerId {
            name: text("manager"),
            operation,
            api_version: if operation == Operation::Apply { String::new() } else { text("apiVersion") },
            subresource: text("subresource"),
        };
        let time = Some(text("time")).filter(|t| !t.is_empty());
        out.insert(id, Owned { fields, api_version: text("apiVersion"), time });
    }
    Some(out)
}

/// Whether the object resets ownership: `metadata.managedFields: []` or a single empty entry.
pub(super) fn asks_for_reset(object: &Value) -> bool {
    match object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Removes managedFields from the object.
pub(super) fn strip(object: &mut Value) {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.shift_remove("managedFields");
    }
}

/// Writes managedFields: appliers first, then by time and name. Removes the field if no manager owns anything.
pub(super) fn encode(object: &mut Value, managers: &Managers) {
    strip(object);
    if managers.is_empty() {
        return;
    }
    let seconds = |owned: &Owned| {
        owned.time.as_deref().and_then(|t| t.parse::<jiff::Timestamp>().ok()).map_or(0, |t| t.as_second())
    };
    let mut entries: Vec<_> = managers.iter().collect();
    entries.sort_by_key(|(id, owned)| {
        (id.operation, seconds(owned), id.name.clone(), owned.api_version.clone(), id.subresource.clone())
    });
    let entries: Vec<Value> = entries
        .into_iter()
        .map(|(id, owned)| {
            let mut entry = Map::with_capacity(7);
            if !id.name.is_empty() {
                entry.insert("manager".into(), json!(id.name));
            }
            entry.insert("operation".into(), json!(id.operation.as_str()));
            if !owned.api_version.is_empty() {
                entry.insert("apiVersion".into(), json!(owned.api_version));
            }
            if let Some(time) = &owned.time {
                entry.insert("time".into(), json!(time));
            }
            entry.insert("fieldsType".into(), json!("FieldsV1"));
            entry.insert("fieldsV1".into(), owned.fields.to_fields_v1());
            if !id.subresource.is_empty() {
                entry.insert("subresource".into(), json!(id.subresource));
            }
            Value::Object(entry)
        })
        .collect();
    if let Some(object) = object.as_object_mut() {
        let meta = object.entry("metadata").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert("managedFields".into(), Value::Array(entries));
        }
    }
}

/// The number of updaters above which the oldest are merged into one, so that managedFields cannot grow without bound.
const MAX_UPDATERS: usize = 10;

/// Merges the oldest updaters of a version into `ancient-changes`.
pub(super) fn cap_updaters(managers: &mut Managers) {
    if managers.len() <= MAX_UPDATERS {
        return;
    }
    let mut updaters: Vec<(i64, ManagerId)> = managers
        .iter()
        .filter(|(id, _)| id.operation == Operation::Update)
        .map(|(id, owned)| {
            let time = owned.time.as_deref().and_then(|t| t.parse::<jiff::Timestamp>().ok());
            (time.map_or(0, |t| t.as_second()), id.clone())
        })
        .collect();
    updaters.sort();
    let mut count = updaters.len();
    let mut first_of_version: BTreeMap<String, ManagerId> = BTreeMap::new();
    for (_, id) in updaters {
        if count <= MAX_UPDATERS {
            return;
        }
        let Some(owned) = managers.get(&id).cloned() else { continue };
        let Some(first) = first_of_version.get(&owned.api_version).cloned() else {
            first_of_version.insert(owned.api_version, id);
            continue;
        };
        let bucket = ManagerId {
            name: "ancient-changes".into(),
            operation: Operation::Update,
            api_version: owned.api_version.clone(),
            subresource: String::new(),
        };
        if !managers.contains_key(&bucket)
            && let Some(oldest) = managers.remove(&first)
        {
            managers.insert(bucket.clone(), oldest);
        }
        managers.remove(&id);
        if let Some(sum) = managers.get_mut(&bucket) {
            sum.fields = sum.fields.union(&owned.fields);
            sum.time = owned.time;
        }
        count -= 1;
    }
}
