//! Views: `/clusters/<name>/…` is the plain API with one namespace in front, which answers to names of its own.
//!
//! ```text
//!   /clusters/root:acme:web/apis/…/namespaces/acme/disks ──► enter ──► /apis/…/namespaces/web-x7/disks ──► authorisation, verbs
//!                                  objects in namespace "acme" ◄── written around ◄── objects in namespace "web-x7"
//! ```
//! The one place where a view's names become the server's is `server::enter`, before authorisation; `request::view::Shown` turns objects back on
//! their way out. Which views there are is the matter of who builds the server ([`Views`]).
//!
//! Namespaces themselves are not shown in views. A view without a namespace (an organisation) has the cluster-scoped kinds only, and
//! a view may show some objects of a kind and not the others. What a view does not serve is not in its discovery and schemas either.

use serde_json::Value;

pub use crate::http::request::view::Narrowed;
use crate::object::kind::ResourceKind;
use crate::object::registry::Registry;
use crate::state::cache::Cache;
use crate::state::storage::keys::ObjectKey;

/// One view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The namespace behind it; empty for a view without one.
    pub namespace: String,
    /// Names that the namespace answers to; the first is shown where a request names none.
    pub aliases: Vec<String>,
    /// Kinds of which not all objects are shown.
    pub narrowed: Vec<Narrowed>,
}

/// Knows the views.
pub trait Views: Send + Sync {
    /// The view of that name, from the objects that there are; `None` if there is none.
    ///
    /// # Errors
    /// In words for the client, if there is one that cannot be entered yet.
    fn view(&self, name: &str, objects: &Objects<'_>) -> Result<Option<View>, String>;

    /// Whether views serve a kind at all. Namespaces they never do.
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

/// The newest state of cluster-scoped objects.
pub struct Objects<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) cache: &'a Cache,
}

impl Objects<'_> {
    /// An object by its kind's group, version and plural and its own name.
    pub fn get(&self, group: &str, version: &str, plural: &str, name: &str) -> Option<Value> {
        let registered = self.registry.find(group, version, plural).filter(|it| it.kind.answer.is_none())?;
        Some(self.cache.kind(&registered.storage).get(ObjectKey::new("", name).as_str())?.parse())
    }
}
