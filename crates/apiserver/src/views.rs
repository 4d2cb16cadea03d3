//! Views: `/clusters/<name>/…` is the plain API with one namespace in front, which answers to names of its own.
//!
//! ```text
//!   /clusters/root:acme:web/apis/…/namespaces/acme/disks ──► enter ──► /apis/…/namespaces/web-x7/disks ──► authorisation, verbs
//!                                  objects in namespace "acme" ◄── written around ◄── objects in namespace "web-x7"
//! ```
//! The one place where a view's names become the server's is [`enter`], before authorisation; [`Shown`] turns objects back on
//! their way out. Which views there are is the matter of who builds the server ([`Views`]).
//!
//! Namespaces themselves are not shown in views. A view without a namespace (an organisation) has the cluster-scoped kinds only, and
//! a view may show some objects of a kind and not the others. What a view does not serve is not in its discovery and schemas either.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::authn::Identity;
use crate::authz::{Attributes, Decision};
use crate::cache::Cache;
use crate::discovery::Documents;
use crate::error::{ApiError, Named};
use crate::kind::ResourceKind;
use crate::registry::Registry;
use crate::request::{RequestInfo, path};
use crate::selector::field_text;
use crate::server::ApiServer;
use crate::storage::encoding;
use crate::storage::keys::ObjectKey;

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

/// Of one cluster-scoped kind a view shows the objects with one value of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowed {
    /// `plural.group`.
    pub kind: String,
    /// `metadata.name`, or a selectable field without the dot that it begins with.
    pub field: String,
    /// The value.
    pub value: String,
}

impl Narrowed {
    /// Whether an object has the value.
    pub fn takes(&self, object: &Value) -> bool {
        field_text(object, &self.field) == self.value
    }

    /// Why an object cannot be written here.
    pub fn refusal(&self, object: &Value) -> String {
        let (field, value, found) = (&self.field, &self.value, field_text(object, &self.field));
        format!("{field}: expected {value:?} at this endpoint, found {found:?}; use the endpoint of {found:?}")
    }
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
    registry: &'a Registry,
    cache: &'a Cache,
}

impl Objects<'_> {
    /// An object by its kind's group, version and plural and its own name.
    pub fn get(&self, group: &str, version: &str, plural: &str, name: &str) -> Option<Value> {
        let registered = self.registry.find(group, version, plural).filter(|it| it.kind.answer.is_none())?;
        Some(self.cache.kind(&registered.storage).get(ObjectKey::new("", name).as_str())?.parse())
    }
}

/// The namespace of a view, as one request names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    real: String,
    alias: String,
    aliases: Vec<String>,
}

impl Shown {
    /// How it is named.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// The real name in place of an alias.
    pub fn real_of<'a>(&'a self, name: &'a str) -> &'a str {
        if self.aliases.iter().any(|alias| alias == name) { &self.real } else { name }
    }

    /// A client's object, as it is stored. `references` are the pointers of its kind to names of namespaces.
    pub fn take_in(&self, object: &mut Value, references: &[&str]) {
        // Another alias than the request's is as wrong as another namespace, also where it is the real name.
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

    /// A stored object, as the client is shown it.
    pub fn show(&self, object: &mut Value, references: &[&str]) {
        for pointer in std::iter::once(&"/metadata/namespace").chain(references) {
            if let Some(Value::String(name)) = object.pointer_mut(pointer)
                && *name == self.real
            {
                name.clone_from(&self.alias);
            }
        }
    }

    /// The same for bytes of the cache: the name is written between what stands around it.
    pub fn show_cached(&self, wire: &Bytes, references: &[&str]) -> Bytes {
        match encoding::namespace_span(wire) {
            Some(span) if references.is_empty() => {
                [&wire[..span.start], self.alias.as_bytes(), &wire[span.end..]].concat().into()
            }
            _ => self.show_bytes(wire, references),
        }
    }

    /// The same for the bytes of any object.
    pub fn show_bytes(&self, wire: &[u8], references: &[&str]) -> Bytes {
        let mut object: Value = serde_json::from_slice(wire).unwrap_or_default();
        self.show(&mut object, references);
        serde_json::to_vec(&object).unwrap_or_default().into()
    }
}

/// The view's name and the path in it, if a path is one of a view.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/clusters/")?;
    let end = rest.find('/').unwrap_or(rest.len());
    Some((&rest[..end], if end == rest.len() { "/" } else { &rest[end..] }))
}

/// Turns a request in the view `cluster` into one of the plain API. A view that is not there is an error only after `info` has been
/// authorised: strangers are not told which there are. Until then its namespace is one that nothing can have.
pub(crate) async fn enter(
    server: &ApiServer,
    cluster: &str,
    info: &mut RequestInfo,
) -> Result<Option<ApiError>, ApiError> {
    let name = path::decode(cluster, false).ok_or_else(ApiError::no_such_path)?;
    if !info.is_resource {
        return Ok(None);
    }
    let is_namespace = info.group.is_empty() && info.resource == "namespaces";
    if is_namespace {
        let named = Named { group: "", resource: "namespaces", name: &info.name };
        let why = "namespaces are not shown here: objects need none, or the name of the organisation or group";
        return Err(ApiError::forbidden(named, why));
    }
    let view = match find(server, &name).await {
        Ok(view) => view,
        Err(refusal) => {
            info.namespace = name;
            return Ok(Some(refusal));
        }
    };
    let registered = server.shared.registry.find(&info.group, &info.version, &info.resource);
    let is_namespaced = registered.is_some_and(|it| it.kind.is_namespaced());
    if registered.is_some_and(|it| !server.shared.views.serves(&it.kind)) {
        info.namespace = name;
        return Ok(Some(ApiError::no_such_path()));
    }
    let is_narrowed =
        |it: &&Narrowed| registered.is_some_and(|registered| registered.kind.qualified_plural() == it.kind);
    info.narrowed = view.narrowed.iter().find(is_narrowed).cloned();
    Ok(rename(&name, view, is_namespaced, info))
}

/// Puts the namespace of the view `name` in the place of what the request calls it; the refusal where it calls it something else. Its
/// namespace then is the view's, none at all, or one that nothing can have.
pub(crate) fn rename(name: &str, view: View, is_namespaced: bool, info: &mut RequestInfo) -> Option<ApiError> {
    let first = view.aliases.first().cloned().unwrap_or_else(|| view.namespace.clone());
    let mut shown = Shown { real: view.namespace.clone(), alias: first, aliases: view.aliases };
    if is_namespaced && view.namespace.is_empty() {
        let message = format!("{name:?} has no {}: name a resource group too, {name}:<group>", info.resource);
        name.clone_into(&mut info.namespace);
        return Some(not_found(message));
    }
    if is_namespaced && !info.namespace.is_empty() {
        if !shown.aliases.contains(&info.namespace) {
            let message = format!(
                "namespaces {:?} not found: {name} answers to {}",
                info.namespace,
                shown.aliases.iter().map(|alias| format!("{alias:?}")).collect::<Vec<_>>().join(", ")
            );
            name.clone_into(&mut info.namespace);
            return Some(not_found(message));
        }
        shown.alias = std::mem::replace(&mut info.namespace, view.namespace);
    } else if is_namespaced && matches!(info.verb, "list" | "watch") {
        info.namespace = view.namespace;
    }
    if !shown.real.is_empty() {
        info.view = Some(shown);
    }
    None
}

/// The documents on what can be asked for in the view `cluster`. Who may not `get` the view's path sees those of any group, so that
/// strangers are not told which views there are.
pub(crate) async fn documents<'a>(server: &'a ApiServer, cluster: &str, identity: &Identity) -> &'a Documents {
    let shared = &server.shared;
    let path = format!("/clusters/{cluster}");
    let asked = Attributes { verb: "get".into(), path, ..Attributes::default() };
    let is_known = shared.authorizer.authorize(identity, &asked).await == Decision::Allow;
    let found = match path::decode(cluster, false).filter(|_| is_known) {
        Some(name) => find(server, &name).await.ok(),
        None => None,
    };
    match found {
        Some(view) if view.namespace.is_empty() => &shared.view_documents.without_namespace,
        _ => &shared.view_documents.with_namespace,
    }
}

/// The documents of views, by whether there is a namespace behind them.
pub(crate) struct ViewDocuments {
    with_namespace: Documents,
    without_namespace: Documents,
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

fn not_found(message: String) -> ApiError {
    ApiError::new(http::StatusCode::NOT_FOUND, "NotFound", message)
}

async fn find(server: &ApiServer, name: &str) -> Result<View, ApiError> {
    let shared = &server.shared;
    let look = || {
        let objects = Objects { registry: &shared.registry, cache: &shared.cache };
        shared.views.view(name, &objects)
    };
    if let Ok(Some(view)) = look() {
        return Ok(view);
    }
    // What was made just now is seen too.
    shared.cache.catch_up().await?;
    match look() {
        Ok(Some(view)) => Ok(view),
        Ok(None) => Err(not_found(format!(
            "clusters {name:?} not found: expected root:<organisation> or root:<organisation>:<resource group>"
        ))),
        Err(why) => Err(ApiError::unavailable(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_of_a_view_is_split() {
        assert_eq!(split("/clusters/root:a:b/apis/x"), Some(("root:a:b", "/apis/x")));
        assert_eq!(split("/clusters/root:a"), Some(("root:a", "/")));
        assert_eq!(split("/apis/clusters/x"), None);
    }

    #[test]
    fn objects_change_names_on_their_way_in_and_out() {
        let shown = Shown { real: "web-x".into(), alias: "acme".into(), aliases: vec!["web".into(), "acme".into()] };
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
