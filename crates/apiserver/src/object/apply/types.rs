//! The types that merging uses, derived from the compiled schema: which values are leaves, and how others merge.

use super::path::Step;
use crate::object::schema::{ListType, MapType, Model, Node, Type};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The type of a value at a path.
#[derive(Clone, Copy)]
pub(super) enum Ty<'a> {
    /// Given by the schema; `preserve` if something above keeps unknown fields.
    Node { node: &'a Node, preserve: bool },
    /// Anything: maps merge by field, lists are leaves.
    Deduced,
    /// Anything, as one leaf.
    Untyped,
    /// Not in the schema.
    Undeclared,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

/// How a value is merged.
#[derive(Clone, Copy)]
pub(super) enum Shape<'a> {
    Scalar(Scalar),
    List(ListShape<'a>),
    Map(MapShape<'a>),
}

#[derive(Clone, Copy)]
pub(super) struct ListShape<'a> {
    node: Option<&'a Node>,
    preserve: bool,
}

#[derive(Clone, Copy)]
pub(super) struct MapShape<'a> {
    ty: Ty<'a>,
}

/// The part of ObjectMeta that matters for merging.
static META: LazyLock<Node> = LazyLock::new(|| {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": text});
    let anything = json!({"type": "string", "format": "date-time"});
    let owner = json!({"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
        "apiVersion": text, "kind": text, "name": text, "uid": {"type": "string", "default": ""}, "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"}}});
    let schema = json!({"type": "object", "properties": {
        "name": text, "generateName": text, "namespace": text, "selfLink": text, "uid": text, "resourceVersion": text,
        "generation": {"type": "integer"}, "creationTimestamp": anything, "deletionTimestamp": anything,
        "deletionGracePeriodSeconds": {"type": "integer"}, "labels": texts, "annotations": texts,
        "ownerReferences": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"], "items": owner},
        "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "managedFields": {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
    }});
    Node::compile(&schema).expect("the schema of metadata compiles")
});

static TEXT: LazyLock<Node> =
    LazyLock::new(|| Node::compile(&json!({"type": "string"})).expect("the schema of a text compiles"));

impl<'a> Ty<'a> {
    pub(super) fn of(model: &'a Model) -> Self {
        Ty::Node { node: model.root(), preserve: false }
    }

    /// Returns the shape of a value of this type. Where the schema leaves it open, the value decides; null then counts as a map.
    pub(super) fn shape(self, value: &Value) -> Shape<'a> {
        let map = Shape::Map(MapShape { ty: self });
        match self {
            Ty::Node { node, preserve } => {
                let list = Shape::List(ListShape { node: Some(node), preserve: preserve || node.preserve_unknown });
                match node.kind.filter(|_| !node.int_or_string) {
                    Some(Type::Object) => map,
                    Some(Type::Array) => list,
                    Some(Type::Integer | Type::Number) => Shape::Scalar(Scalar::Numeric),
                    Some(Type::Boolean) => Shape::Scalar(Scalar::Boolean),
                    Some(Type::String) if matches!(node.format(), "" | "byte") => Shape::Scalar(Scalar::String),
                    Some(Type::String) => Shape::Scalar(Scalar::Untyped),
                    None => match value {
                        Value::Object(_) | Value::Null => map,
                        Value::Array(_) => list,
                        _ => Shape::Scalar(Scalar::Untyped),
                    },
                }
            }
            Ty::Deduced | Ty::Untyped | Ty::Undeclared => match value {
                Value::Object(_) | Value::Null => map,
                Value::Array(_) => Shape::List(ListShape { node: None, preserve: true }),
                _ => Shape::Scalar(Scalar::Untyped),
            },
        }
    }
}

impl<'a> MapShape<'a> {
    pub(super) fn is_atomic(self) -> bool {
        match self.ty {
            Ty::Node { node, .. } => node.map_type == MapType::Atomic,
            Ty::Deduced => false,
            Ty::Untyped | Ty::Undeclared => true,
        }
    }

    /// The type of a field that the schema names.
    pub(super) fn declared(self, name: &str) -> Option<Ty<'a>> {
        let Ty::Node { node, preserve } = self.ty else { return None };
        let preserve = preserve || node.preserve_unknown;
        if node.embedded {
            match name {
                "metadata" => return Some(Ty::Node { node: &META, preserve: false }),
                "apiVersion" | "kind" => return Some(Ty::Node { node: &TEXT, preserve: false }),
                _ => {}
            }
        }
        node.properties.get(name).map(|node| Ty::Node { node, preserve })
    }

    /// The type of any field, named or not.
    pub(super) fn field(self, name: &str) -> Ty<'a> {
        self.declared(name).unwrap_or_else(|| self.element())
    }

    fn element(self) -> Ty<'a> {
        match self.ty {
            Ty::Deduced => Ty::Deduced,
            Ty::Untyped | Ty::Undeclared => Ty::Untyped,
            Ty::Node { node, preserve } => {
                let preserve = preserve || node.preserve_unknown;
                match &node.additional {
                    Some(_) if node.additional_is_any() => Ty::Deduced,
                    Some(child) => Ty::Node { node: child, preserve },
                    None if preserve || (node.properties.is_empty() && !node.embedded) => Ty::Deduced,
                    None => Ty::Undeclared,
                }
            }
        }
    }
}

impl<'a> ListShape<'a> {
    pub(super) fn is_atomic(self) -> bool {
        self.node.is_none_or(|node| node.list_type == ListType::Atomic)
    }

    pub(super) fn item(self) -> Ty<'a> {
        match self.node.and_then(|node| node.items.as_deref()) {
            Some(node) => Ty::Node { node, preserve: self.preserve },
            None => Ty::Untyped,
        }
    }

    /// The step to an item of a list that is not atomic.
    pub(super) fn step(self, item: &Value) -> Result<Step, String> {
        match self.node.map(|node| &node.list_type) {
            Some(ListType::Map(keys)) => self.step_by_keys(keys, item),
            _ => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_string()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_string()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_string()),
                scalar => Ok(Step::value(scalar)),
            },
        }
    }

    /// Returns the step to an item by its keys. A missing key has its default, or is left out.
    fn step_by_keys(self, keys: &[String], item: &Value) -> Result<Step, String> {
        let map = match item {
            Value::Object(map) => map,
            Value::Null => return Err("associative list with keys may not have a null element".to_string()),
            _ => return Err("associative list with keys may not have non-map elements".to_string()),
        };
        let items = self.node.and_then(|node| node.items.as_deref());
        let default = |key: &str| items.and_then(|n| n.properties.get(key)).and_then(|n| n.default.clone());
        let mut out = Map::new();
        for key in keys {
            if let Some(value) = map.get(key).cloned().or_else(|| default(key)) {
                out.insert(key.clone(), value);
            }
        }
        if out.is_empty() {
            let quoted: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                quoted.join(" ")
            ));
        }
        Ok(Step::key(out))
    }
}
