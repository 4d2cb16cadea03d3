//! The documents of views.

use std::sync::Arc;

use super::Documents;
use crate::http::views::Views;
use crate::object::kind::ResourceKind;
use crate::object::registry::Registry;

/// The documents of views, for those with and without a namespace.
pub(crate) struct ViewDocuments {
    pub(crate) with_namespace: Documents,
    pub(crate) without_namespace: Documents,
}

impl ViewDocuments {
    pub(crate) fn new(registry: &Registry, views: &dyn Views) -> Self {
        let serves =
            |kind: &ResourceKind| views.serves(kind) && !(kind.group.is_empty() && kind.plural == "namespaces");
        ViewDocuments {
            with_namespace: Documents::new(Arc::new(registry.only(serves))),
            without_namespace: Documents::new(Arc::new(registry.only(|kind| serves(kind) && !kind.is_namespaced()))),
        }
    }
}
