//! Translates the objects of a request in a view.

use bytes::Bytes;
use serde_json::Value;

use crate::object::selector::field_text;
use crate::state::storage::encoding;

/// A filter: of a cluster-scoped kind, a view shows only objects with this value of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFilter {
    /// `plural.group`.
    pub kind: String,
    /// `metadata.name`, or a selectable field without its leading dot.
    pub field: String,
    /// The value.
    pub value: String,
}

impl ObjectFilter {
    /// Whether an object has the value.
    pub fn matches(&self, object: &Value) -> bool {
        field_text(object, &self.field) == self.value
    }

    /// Returns the message for an object that cannot be written in this view.
    pub fn refusal(&self, object: &Value) -> String {
        let (field, value, found) = (&self.field, &self.value, field_text(object, &self.field));
        format!("{field}: expected {value:?} at this endpoint, found {found:?}; use the endpoint of {found:?}")
    }
}

/// The namespace of a view and the name by which a request refers to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewNamespace {
    pub(crate) real: String,
    pub(crate) alias: String,
    pub(crate) aliases: Vec<String>,
}

impl ViewNamespace {
    /// Returns the name that the request uses.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Returns the real name for an alias.
    pub fn real_of<'a>(&'a self, name: &'a str) -> &'a str {
        if self.aliases.iter().any(|alias| alias == name) { &self.real } else { name }
    }

    /// Translates a client's object to its stored form. `references` are the JSON pointers to names of namespaces in its kind.
    pub fn take_in(&self, object: &mut Value, references: &[&str]) {
        // Any alias other than the request's is as wrong as another namespace, even the real name.
        if let Some(Value::String(name)) = object.pointer_mut("/metadata/namespace") {
            if *name == self.alias {
                name.clone_from(&self.real);
            } else if *name == self.real {
                name.clone_from(&self.alias);
            }
        }
        for pointer in references {
            if let Some(Value::String(name)) = object.pointer_mut(pointer) {
                *name = self.real_of(name).to_owned();
            }
        }
    }

    /// Translates a stored object to the client's form.
    pub fn show(&self, object: &mut Value, references: &[&str]) {
        for pointer in std::iter::once(&"/metadata/namespace").chain(references) {
            if let Some(Value::String(name)) = object.pointer_mut(pointer)
                && *name == self.real
            {
                name.clone_from(&self.alias);
            }
        }
    }

    /// As [`ViewNamespace::show`], for bytes of the cache: replaces the name without parsing the object.
    pub fn show_cached(&self, wire: &Bytes, references: &[&str]) -> Bytes {
        match encoding::namespace_span(wire) {
            Some(span) if references.is_empty() => {
                [&wire[..span.start], self.alias.as_bytes(), &wire[span.end..]].concat().into()
            }
            _ => self.show_bytes(wire, references),
        }
    }

    /// As [`ViewNamespace::show`], for the bytes of any object.
    pub fn show_bytes(&self, wire: &[u8], references: &[&str]) -> Bytes {
        let mut object: Value = serde_json::from_slice(wire).unwrap_or_default();
        self.show(&mut object, references);
        serde_json::to_vec(&object).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_change_names_on_their_way_in_and_out() {
        let shown =
            ViewNamespace { real: "web-x".into(), alias: "acme".into(), aliases: vec!["web".into(), "acme".into()] };
        let given = json!({"metadata": {"name": "a", "namespace": "acme"}, "involvedObject": {"namespace": "web"}});
        let mut object = given.clone();
        shown.take_in(&mut object, &["/involvedObject/namespace"]);
        assert_eq!(object["metadata"]["namespace"], "web-x");
        assert_eq!(object["involvedObject"]["namespace"], "web-x");
        let mut other = json!({"metadata": {"namespace": "web"}});
        shown.take_in(&mut other, &[]);
        assert_eq!(other["metadata"]["namespace"], "web", "not the request's own alias");
        let stored: Bytes = encoding::encode(
            &json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "namespace": "web-x"}}),
        )
        .into();
        let wire = encoding::at_revision(&stored, 7);
        let expected = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "namespace": "acme", "resourceVersion": "7"}});
        assert_eq!(serde_json::from_slice::<Value>(&shown.show_cached(&wire, &[])).unwrap(), expected);
        assert_eq!(serde_json::from_slice::<Value>(&shown.show_cached(&wire, &["/x"])).unwrap(), expected);
    }
}
