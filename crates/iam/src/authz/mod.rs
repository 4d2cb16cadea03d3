//! May they? Pure decisions over tables of rules, in the shape of Kubernetes' RBAC. What no rule allows is denied.
//!
//! A request is described as the API server understood it after mapping and normalising (group, resource, verb, name), never by its raw
//! path. Tables are in [`roles`], one per kind of caller; [`decide`] finds the tables that belong to an identity and evaluates each
//! rule.

pub mod registry;
pub mod roles;

use crate::identity::{GROUP_AUTHENTICATED, GROUP_EDGES, GROUP_MONITORING, GROUP_OPERATORS, Identity};

/// A request on a resource or on another path, after normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// On a resource.
    Resource {
        /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
        verb: &'a str,
        /// API group, empty for core.
        group: &'a str,
        /// Plural name.
        resource: &'a str,
        /// Subresource, empty for none.
        subresource: &'a str,
        /// Namespace, empty for cluster-wide requests.
        namespace: &'a str,
        /// Object name, empty for collections.
        name: &'a str,
    },
    /// On a path that is no resource: discovery, health, metrics.
    Path {
        /// HTTP method in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

/// The decision, with the message of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, by the named table.
    Allowed {
        /// The table that allowed it (for the audit log).
        by: &'static str,
    },
    /// Denied.
    Denied {
        /// The reason, as a half sentence that can follow `User "x" cannot get resource …: `. Names no object that the caller may not
        /// see.
        reason: String,
    },
}

impl Decision {
    /// Whether the request may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

/// The object names that a rule covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Every name, and collections.
    Any,
    /// Only objects with the name of the caller's own host. Never a collection; creation is allowed when the name is known.
    OwnHost,
}

/// One line of a table: these verbs on these resources of these groups.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Verbs; `*` is all.
    pub verbs: &'static [&'static str],
    /// API groups; `*` is all, the empty string is core.
    pub groups: &'static [&'static str],
    /// Plurals, or `plural/subresource`; `*` is everything, subresources included.
    pub resources: &'static [&'static str],
    /// The names.
    pub names: Names,
}

/// A table of rules for resources and for other paths.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Name, shown in the audit log.
    pub name: &'static str,
    /// Rules on resources.
    pub rules: &'static [Rule],
    /// Paths that may be read; a trailing `*` covers everything below.
    pub readable_paths: &'static [&'static str],
}

/// Decides one request.
pub fn decide(identity: &Identity, request: &Request<'_>) -> Decision {
    for role in roles_of(identity) {
        if role_allows(role, identity, request) {
            return Decision::Allowed { by: role.name };
        }
    }
    Decision::Denied { reason: denial(identity, request) }
}

/// The tables that hold for an identity.
fn roles_of(identity: &Identity) -> Vec<&'static Role> {
    let mut found = Vec::new();
    if identity.is_in(GROUP_OPERATORS) {
        found.push(&roles::OPERATOR);
    }
    // A node or controller is known by group *and* name: a certificate with only the group identifies none.
    if identity.host().is_some() {
        found.push(&roles::NODE);
    }
    if identity.is_in(GROUP_MONITORING) {
        found.push(&roles::MONITORING);
    }
    if identity.is_in(GROUP_EDGES) {
        found.push(&roles::EDGE);
    }
    if let Some(controller) = identity.controller_name() {
        found.push(&roles::ANY_CONTROLLER);
        found.extend(roles::controller(controller));
    }
    if identity.is_in(GROUP_AUTHENTICATED) {
        found.push(&roles::AUTHENTICATED);
    }
    found
}

fn role_allows(role: &Role, identity: &Identity, request: &Request<'_>) -> bool {
    match *request {
        Request::Path { verb, path } => {
            matches!(verb, "get" | "head") && role.readable_paths.iter().any(|rule| path_matches(rule, path))
        }
        Request::Resource { verb, group, resource, subresource, name, .. } => role.rules.iter().any(|rule| {
            contains(rule.verbs, verb)
                && contains(rule.groups, group)
                && rule.resources.iter().any(|found| resource_matches(found, resource, subresource))
                && match rule.names {
                    Names::Any => true,
                    Names::OwnHost => !name.is_empty() && identity.host() == Some(name),
                }
        }),
    }
}

fn contains(list: &[&str], word: &str) -> bool {
    list.iter().any(|found| *found == "*" || *found == word)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        Some((plural, sub)) => plural == resource && sub == subresource && !subresource.is_empty(),
        None => rule == resource && subresource.is_empty(),
    }
}

fn path_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix) || Some(path) == prefix.strip_suffix('/'),
        None => rule == path,
    }
}

fn denial(identity: &Identity, request: &Request<'_>) -> String {
    if let Request::Resource { resource, .. } = request
        && identity.host().is_some()
        && *resource == "hosts"
    {
        return "a host agent may only change the Host of its own name".into();
    }
    "no rule allows it".into()
}
