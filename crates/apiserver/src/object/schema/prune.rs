//! Removes fields that the schema does not declare.

use super::{Node, UnknownField};
use crate::object::problems::Problems;
use serde_json::Value;

const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// A path being walked, written as Kubernetes does: `spec.disks[0].colour`.
#[derive(Default)]
pub(super) struct Walk {
    path: String,
    found: Problems,
    /// Unknown fields in the metadata of embedded resources, which Kubernetes reports last.
    embedded: Problems,
}

impl Walk {
    fn field<T>(&mut self, name: &str, body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let out = body(self);
        self.path.truncate(length);
        out
    }

    fn index<T>(&mut self, index: usize, body: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let out = body(self);
        self.path.truncate(length);
        out
    }

    fn record(&mut self, name: &str) {
        if !self.found.is_full() {
            self.field(name, |walk| walk.found.add(|| walk.path.clone()));
        }
    }
}

pub(super) fn prune(object: &mut Value, root: &Node) -> Vec<UnknownField> {
    let mut walk = Walk::default();
    visit(object, Some(root), &mut walk);
    let [found, embedded] = [walk.found, walk.embedded].map(|problems| {
        let mut paths = problems.into_paths();
        paths.sort_unstable();
        paths
    });
    found.into_iter().chain(embedded).map(|path| UnknownField { path }).collect()
}

fn visit(value: &mut Value, node: Option<&Node>, walk: &mut Walk) {
    if let Some(node) = node
        && node.preserve_unknown
    {
        return keep(value, node, walk);
    }
    match value {
        Value::Object(map) => {
            // In one pass: taking an entry out of an ordered map moves all behind it.
            map.retain(|name, entry| {
                let known = match node {
                    None => None,
                    Some(node) if node.embedded && META_FIELDS.contains(&name.as_str()) => return true,
                    Some(node) => match (node.properties.get(name), node.additional.as_deref()) {
                        (Some(child), _) => Some(Some(child)),
                        (None, Some(child)) => Some((!node.additional_is_bool).then_some(child)),
                        (None, None) => None,
                    },
                };
                match known {
                    Some(child) => walk.field(name, |walk| visit(entry, child, walk)),
                    None => walk.record(name),
                }
                known.is_some()
            });
            if node.is_some_and(|n| n.embedded) && !walk.path.is_empty() {
                super::embedded::coerce(map, &walk.path, &mut walk.embedded);
            }
        }
        Value::Array(items) => {
            let child = node.and_then(|n| n.items.as_deref());
            for (i, item) in items.iter_mut().enumerate() {
                walk.index(i, |walk| visit(item, child, walk));
            }
        }
        _ => {}
    }
}

/// Below a node that preserves unknown fields, declared fields are still pruned.
fn keep(value: &mut Value, node: &Node, walk: &mut Walk) {
    match value {
        Value::Object(map) => {
            for (name, entry) in map.iter_mut() {
                if node.embedded && META_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                if let Some(child) = node.properties.get(name) {
                    walk.field(name, |walk| visit(entry, Some(child), walk));
                } else if let Some(child) = &node.additional
                    && !node.additional_is_bool
                {
                    walk.field(name, |walk| visit(entry, Some(child), walk));
                }
            }
            if node.embedded && !walk.path.is_empty() {
                super::embedded::coerce(map, &walk.path, &mut walk.embedded);
            }
        }
        Value::Array(items) => {
            if let Some(child) = node.items.as_deref() {
                for (i, item) in items.iter_mut().enumerate() {
                    walk.index(i, |walk| keep(item, child, walk));
                }
            }
        }
        _ => {}
    }
}
