//! Which objects a list, watch or deletecollection is about.

use crate::cache::object::CachedObject;
use crate::error::ApiError;
use crate::registry::Registered;
use crate::request::{Query, RequestInfo};
use crate::selector::{FieldSelector, LabelSelector};
use crate::views::Narrowed;

/// Namespace, labels and fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Empty for all.
    pub(crate) namespace: String,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    name: Option<String>,
}

impl Selection {
    /// From the query.
    pub(crate) fn parse(registered: &Registered, info: &RequestInfo, query: &Query) -> Result<Self, ApiError> {
        let bad = |error: crate::selector::SelectorError| ApiError::bad_request(error.to_string());
        let labels = query.text("labelSelector").map(LabelSelector::parse).transpose().map_err(bad)?;
        let selectable: Vec<&str> = registered.kind.selectable_fields.iter().map(String::as_str).collect();
        let mut fields = query
            .text("fieldSelector")
            .map(|text| FieldSelector::parse(text, registered.kind.is_namespaced(), &selectable))
            .transpose()
            .map_err(bad)?;
        if let (Some(fields), Some(view)) = (&mut fields, &info.view) {
            fields.map_value("metadata.namespace", |name| view.real_of(name).to_owned());
            for pointer in registered.kind.namespace_references {
                let field = pointer.trim_start_matches('/').replace('/', ".");
                fields.map_value(&field, |name| view.real_of(name).to_owned());
            }
        }
        if let Some(Narrowed { field, value, .. }) = &info.narrowed {
            fields.get_or_insert_default().require(field, value);
        }
        let name = fields.as_ref().and_then(|it| it.exact_name().map(str::to_owned));
        Ok(Selection {
            namespace: info.namespace.clone(),
            labels: labels.filter(|it| !it.is_everything()),
            fields: fields.filter(|it| !it.is_everything()),
            name,
        })
    }

    /// Whether labels or fields narrow it.
    pub(crate) fn has_selectors(&self) -> bool {
        self.labels.is_some() || self.fields.is_some()
    }

    /// Whether it takes an object.
    pub(crate) fn matches(&self, object: &CachedObject) -> bool {
        (self.namespace.is_empty() || object.key.namespace() == self.namespace)
            && self.name.as_ref().is_none_or(|name| object.key.name() == name)
            && self.labels.as_ref().is_none_or(|labels| labels.matches(object.labels.as_ref()))
            && self.fields.as_ref().is_none_or(|fields| object.with_fields(|it| fields.matches(it)))
    }
}
