//! The request: parsed once from the method, the path and the query, before any decision about it.

pub mod content;
pub(crate) mod go_time;
pub mod json;
pub mod metadata;
pub mod negotiate;
pub mod options;
pub mod path;
pub mod protobuf;
pub mod query;
pub mod token;
pub mod view;
pub mod yaml;

use http::Method;

use crate::http::authz::Attributes;
use crate::object::error::ApiError;
use view::{ObjectFilter, ViewNamespace};

pub use query::Query;

/// The parsed method and path of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Lower-case Kubernetes verb; for other paths the method in lower case.
    pub verb: &'static str,
    /// Whether the path is below `/api/<version>` or `/apis/<group>/<version>` and names a resource.
    pub is_resource: bool,
    /// Empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural.
    pub resource: String,
    /// Empty without one.
    pub subresource: String,
    /// The rest of the path after the subresource.
    pub rest: String,
    /// Empty for cluster-scoped kinds and requests over all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// The normalised path: segments, decoded; in a view without the view's.
    pub segments: Vec<String>,
    /// How the view shows its namespace; `namespace` is then the real one.
    pub view: Option<ViewNamespace>,
    /// The filter of the view for objects of the kind; `None` for all.
    pub filter: Option<ObjectFilter>,
}

impl RequestInfo {
    /// Parses a request.
    ///
    /// # Errors
    /// 404 for paths that cannot be normalised.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Result<Self, ApiError> {
        let segments = path::normalise(path)?;
        let mut info = RequestInfo { segments, ..RequestInfo::default() };
        let parts: Vec<&str> = info.segments.iter().map(String::as_str).collect();
        let resource_parts = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest.to_vec()
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest.to_vec()
            }
            _ => {
                info.verb = method_word(method);
                return Ok(info);
            }
        };
        info.is_resource = true;
        let (namespace, object) = match resource_parts.as_slice() {
            // A namespace is itself an object with subresources.
            ["namespaces", name, subresource @ ("status" | "finalize")] => {
                (*name, vec!["namespaces", name, subresource])
            }
            ["namespaces", name] => (*name, vec!["namespaces", name]),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest.to_vec()),
            rest => ("", rest.to_vec()),
        };
        let namespace = namespace.to_owned();
        let mut object = object.into_iter().map(str::to_owned);
        let resource = object.next().unwrap_or_default();
        let name = object.next().unwrap_or_default();
        let subresource = object.next().unwrap_or_default();
        let rest = object.collect::<Vec<_>>().join("/");
        info.namespace = namespace;
        info.resource = resource;
        info.name = name;
        info.subresource = subresource;
        info.rest = rest;
        info.verb = info.resource_verb(method, query);
        Ok(info)
    }

    fn resource_verb(&self, method: &Method, query: &Query) -> &'static str {
        let is_collection = self.name.is_empty();
        match *method {
            Method::GET | Method::HEAD if !is_collection => "get",
            Method::GET | Method::HEAD if query.flag("watch") => "watch",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if is_collection => "deletecollection",
            Method::DELETE => "delete",
            _ => method_word(method),
        }
    }

    /// Whether the path is that of a namespace (`/api/v1/namespaces/<name>`) or of its subresource, and not one below it: a
    /// permission there is for that namespace only.
    pub fn is_namespace_itself(&self) -> bool {
        let group_and_version = if self.group.is_empty() { 2 } else { 3 };
        let parts = self.segments.len().saturating_sub(group_and_version);
        self.resource == "namespaces"
            && self.name == self.namespace
            && parts == 2 + usize::from(!self.subresource.is_empty())
    }

    /// Returns the namespace as the client knows it.
    pub fn shown_namespace(&self) -> &str {
        self.view.as_ref().map_or(&self.namespace, ViewNamespace::alias)
    }

    /// Returns the normalised path.
    pub fn path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }

    /// Returns the attributes for the authorizer.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            verb: self.verb.to_owned(),
            is_resource: self.is_resource,
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            path: if self.is_resource { String::new() } else { self.path() },
        }
    }
}

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
