//! Views: `/clusters/<name>/…` is the plain API reduced to one namespace, which has names of its own in the view.
//!
//! ```text
//!   /clusters/root:acme:web/apis/…/namespaces/acme/disks ──► enter ──► /apis/…/namespaces/web-x7/disks ──► authorisation, verbs
//!                                  objects in namespace "acme" ◄── written around ◄── objects in namespace "web-x7"
//! ```
//! Only `server::enter` translates a view's names to the server's, before authorisation; `request::view::ViewNamespace` translates
//! objects. The builder of the server decides which views exist ([`Views`]).
//!
//! Views do not show namespaces themselves. A view without a namespace (an organisation) has the cluster-scoped kinds only, and a
//! view may show only some objects of a kind. Discovery and schemas of a view contain only the kinds that it serves.

use serde_json::Value;

pub use crate::http::request::view::ObjectFilter;
use crate::object::kind::ResourceKind;
use crate::object::registry::Registry;
use crate::state::cache::Cache;
use crate::state::storage::keys::ObjectKey;

/// One view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The namespace behind it; empty for a view without one.
    pub namespace: String,
    /// Names of the namespace in the view; the first is used where a request names none.
    pub aliases: Vec<String>,
    /// Filters for kinds of which not all objects are shown.
    pub filters: Vec<ObjectFilter>,
}

/// Provides the views.
pub trait Views: Send + Sync {
    /// Returns the view of this name, derived from objects; `None` if it does not exist.
    ///
    /// # Errors
    /// A message for the client, if the view exists but is not usable yet.
    fn view(&self, name: &str, objects: &Objects<'_>) -> Result<Option<View>, String>;

    /// Whether views serve a kind at all. They never serve namespaces.
    fn serves(&self, _: &ResourceKind) -> bool {
        true
    }
}

/// No views.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoViews;

impl Views for NoViews {
    fn view(&self, _: &str, _: &Objects<'_>) -> Result<Option<View>, String> {
        Ok(None)
    }
}

/// Access to the newest state of cluster-scoped objects.
pub struct Objects<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) cache: &'a Cache,
}

impl Objects<'_> {
    /// Returns an object by its kind's group, version and plural and its name.
    pub fn get(&self, group: &str, version: &str, plural: &str, name: &str) -> Option<Value> {
        let registered = self.registry.find(group, version, plural).filter(|it| it.kind.answer.is_none())?;
        Some(self.cache.kind(&registered.storage).get(ObjectKey::new("", name).as_str())?.parse())
    }
}
