//! Requests in views: `/clusters/<name>/…` becomes a request of the plain API.

use super::shared::Shared;
use crate::http::authz::{Attributes, Decision};
use crate::http::discovery::Documents;
use crate::http::request::view::{ObjectFilter, ViewNamespace};
use crate::http::request::{RequestInfo, path};
use crate::http::views::{Objects, View};
use crate::object::error::{ApiError, Named};
use crate::object::identity::Identity;

/// Splits the path of a view into the view's name and the path in the view.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/clusters/")?;
    let end = rest.find('/').unwrap_or(rest.len());
    Some((&rest[..end], if end == rest.len() { "/" } else { &rest[end..] }))
}

/// Turns a request in the view `cluster` into one of the plain API. The error for a view that does not exist is returned for
/// after authorisation, so that unauthorised callers cannot find out which views exist. Until then `info` has a namespace that
/// cannot exist.
pub(crate) async fn enter(
    shared: &Shared,
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
    let view = match find(shared, &name).await {
        Ok(view) => view,
        Err(refusal) => {
            info.namespace = name;
            return Ok(Some(refusal));
        }
    };
    let registered = shared.registry.find(&info.group, &info.version, &info.resource);
    let is_namespaced = registered.is_some_and(|it| it.kind.is_namespaced());
    if registered.is_some_and(|it| !shared.views.serves(&it.kind)) {
        info.namespace = name;
        return Ok(Some(ApiError::no_such_path()));
    }
    let is_of_kind =
        |it: &&ObjectFilter| registered.is_some_and(|registered| registered.kind.qualified_plural() == it.kind);
    info.filter = view.filters.iter().find(is_of_kind).cloned();
    Ok(rename(&name, view, is_namespaced, info))
}

/// Replaces the request's name of the namespace by the real one of the view `name`. Returns the refusal if the request uses a
/// name that is not an alias. The namespace of `info` is then the view's, empty, or one that cannot exist.
pub(crate) fn rename(name: &str, view: View, is_namespaced: bool, info: &mut RequestInfo) -> Option<ApiError> {
    let first = view.aliases.first().cloned().unwrap_or_else(|| view.namespace.clone());
    let mut shown = ViewNamespace { real: view.namespace.clone(), alias: first, aliases: view.aliases };
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

/// Returns the discovery documents of the view `cluster`. Callers that may not `get` the view's path get those of a resource
/// group, so that they cannot find out which views exist.
pub(crate) async fn documents<'a>(shared: &'a Shared, cluster: &str, identity: &Identity) -> &'a Documents {
    let path = format!("/clusters/{cluster}");
    let attributes = Attributes { verb: "get".into(), path, ..Attributes::default() };
    let is_known = shared.authorizer.authorize(identity, &attributes).await == Decision::Allow;
    let found = match path::decode(cluster, false).filter(|_| is_known) {
        Some(name) => find(shared, &name).await.ok(),
        None => None,
    };
    match found {
        Some(view) if view.namespace.is_empty() => &shared.view_documents.without_namespace,
        _ => &shared.view_documents.with_namespace,
    }
}

fn not_found(message: String) -> ApiError {
    ApiError::new(http::StatusCode::NOT_FOUND, "NotFound", message)
}

async fn find(shared: &Shared, name: &str) -> Result<View, ApiError> {
    let look = || {
        let objects = Objects { registry: &shared.registry, cache: &shared.cache };
        shared.views.view(name, &objects)
    };
    if let Ok(Some(view)) = look() {
        return Ok(view);
    }
    // The view may depend on an object that was only just created.
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

    #[test]
    fn a_path_of_a_view_is_split() {
        assert_eq!(split("/clusters/root:a:b/apis/x"), Some(("root:a:b", "/apis/x")));
        assert_eq!(split("/clusters/root:a"), Some(("root:a", "/")));
        assert_eq!(split("/apis/clusters/x"), None);
    }
}
