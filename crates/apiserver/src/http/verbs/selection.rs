//! The selection of objects for list, watch and deletecollection.

use std::sync::Arc;

use crate::http::request::view::ObjectFilter;
use crate::http::request::{Query, RequestInfo, options};
use crate::object::error::ApiError;
use crate::object::registry::Registered;
use crate::object::selector::{FieldSelector, LabelSelector};
use crate::state::cache::Cache;
use crate::state::cache::index::Term;
use crate::state::cache::kind::{Page, PageRequest, TooOld};
use crate::state::cache::object::CachedObject;
use crate::state::storage::keys::ObjectKey;

/// A part of the selected objects; by default all, as of now.
#[derive(Clone, Copy, Default)]
pub(crate) struct PageBounds<'a> {
    /// Only keys greater than this one.
    pub(crate) after: Option<&'a str>,
    /// The maximum number of objects.
    pub(crate) limit: Option<usize>,
    /// As of this revision.
    pub(crate) at: Option<u64>,
}

/// A selection by namespace, labels and fields.
#[derive(Clone)]
pub(crate) struct Selection {
    /// Empty for all.
    pub(crate) namespace: String,
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    name: Option<String>,
    /// The only key that can match, if the selection names one.
    only: Option<ObjectKey>,
    registered: Arc<Registered>,
}

impl Selection {
    /// Parses and checks the query.
    pub(crate) fn parse(registered: &Arc<Registered>, info: &RequestInfo, query: &Query) -> Result<Self, ApiError> {
        let bad = |error: crate::object::selector::SelectorError| ApiError::bad_request(error.to_string());
        let labels = query.text("labelSelector").map(LabelSelector::parse).transpose().map_err(bad)?;
        let mut fields = query.text("fieldSelector").map(FieldSelector::read).transpose().map_err(bad)?;
        // Invalid combinations of parameters are reported before fields that cannot be selected.
        options::check_list(query, info.verb == "watch")?;
        if let Some(fields) = &fields {
            let paths: Vec<&str> = registered.kind.selectable_fields.iter().map(String::as_str).collect();
            fields.check_fields(registered.kind.is_namespaced(), &paths).map_err(bad)?;
        }
        if let (Some(fields), Some(view)) = (&mut fields, &info.view) {
            fields.map_value("metadata.namespace", |name| view.real_of(name).to_owned());
            for pointer in registered.kind.namespace_references {
                let field = pointer.trim_start_matches('/').replace('/', ".");
                fields.map_value(&field, |name| view.real_of(name).to_owned());
            }
        }
        if let Some(ObjectFilter { field, value, .. }) = &info.filter {
            fields.get_or_insert_default().require(field, value);
        }
        let name = fields.as_ref().and_then(|it| it.exact_name().map(str::to_owned));
        let is_whole = !info.namespace.is_empty() || !registered.kind.is_namespaced();
        Ok(Selection {
            only: name.as_ref().filter(|_| is_whole).map(|name| ObjectKey::new(&info.namespace, name)),
            namespace: info.namespace.clone(),
            labels: labels.filter(|it| !it.is_everything()),
            fields: fields.filter(|it| !it.is_everything()),
            name,
            registered: registered.clone(),
        })
    }

    /// Whether it selects by labels or fields.
    pub(crate) fn has_selectors(&self) -> bool {
        self.labels.is_some() || self.fields.is_some()
    }

    /// Whether it names a single object.
    pub(crate) fn names_one(&self) -> bool {
        self.only.is_some()
    }

    /// Whether it matches an object.
    pub(crate) fn matches(&self, object: &CachedObject) -> bool {
        (self.namespace.is_empty() || object.key.namespace() == self.namespace)
            && self.name.as_ref().is_none_or(|name| object.key.name() == name)
            && self.labels.as_ref().is_none_or(|labels| labels.matches(|key| object.label(key)))
            && self.fields.as_ref().is_none_or(|fields| fields.matches(|field| object.field(&self.registered, field)))
    }

    /// Returns a part of the matching objects.
    ///
    /// # Errors
    /// If the requested revision is before the cache's history.
    pub(crate) fn page(&self, cache: &Cache, bounds: PageBounds<'_>) -> Result<Page, TooOld> {
        let request = PageRequest {
            namespace: &self.namespace,
            after: bounds.after,
            limit: bounds.limit,
            at: bounds.at,
            only: self.only.as_ref().map(ObjectKey::as_str),
            terms: &self.terms(),
        };
        cache.kind(&self.registered.storage).page(&request, cache.revision(), |object| self.matches(object))
    }

    /// Returns the terms that an index can use.
    fn terms(&self) -> Vec<Term<'_>> {
        let labels = self.labels.iter().flat_map(|labels| labels.exact_values());
        let fields = self.fields.iter().flat_map(|fields| fields.exact_values());
        let numbered =
            fields.filter_map(|(field, text)| Some(Term::Field(self.registered.kind.selectable_number(field)?, text)));
        labels.map(|(key, value)| Term::Label(key, value)).chain(numbered).collect()
    }
}
