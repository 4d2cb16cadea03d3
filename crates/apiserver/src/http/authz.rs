//! Authorisation, decided on the normalised request only. Requests that are not explicitly allowed are denied.

use async_trait::async_trait;

use crate::object::identity::Identity;

/// The action that a caller requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the HTTP
    /// method in lower case.
    pub verb: String,
    /// Whether the request is for a resource; else `path` is set.
    pub is_resource: bool,
    /// Empty for the core group.
    pub group: String,
    /// For example `v1alpha1`.
    pub version: String,
    /// The plural.
    pub resource: String,
    /// Empty without one.
    pub subresource: String,
    /// Empty for cluster-scoped kinds and requests over all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// The path of a request that is not for a resource.
    pub path: String,
}

/// The decision of an authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow,
    /// Denied, or not known to be allowed.
    Deny {
        /// The reason, which is appended to the error message; may be empty.
        reason: String,
    },
}

/// Decides what callers may do.
#[async_trait]
pub trait Authorize: Send + Sync {
    /// Decides whether `identity` may do this.
    async fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision;
}

/// Allows everything to members of the given groups, and only discovery and schemas to other authenticated callers.
#[derive(Clone, Debug, Default)]
pub struct GroupAuthorizer {
    /// Groups with all rights.
    pub unlimited: Vec<String>,
}

#[async_trait]
impl Authorize for GroupAuthorizer {
    async fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        let is_question = attributes.verb == "create"
            && attributes.resource.starts_with("selfsubject")
            && attributes.group.ends_with(".k8s.io");
        let is_document = !attributes.is_resource && is_discovery_path(&attributes.path);
        if is_question || is_document || self.unlimited.iter().any(|group| identity.is_in(group)) {
            Decision::Allow
        } else {
            Decision::Deny { reason: String::new() }
        }
    }
}

/// Whether a path is a document that every authenticated caller may read.
pub fn is_discovery_path(path: &str) -> bool {
    ["/api", "/apis", "/openapi", "/version"]
        .iter()
        .any(|root| path == *root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')))
}
