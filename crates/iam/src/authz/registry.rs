//! Authorisation in the container registry: pull and push by repository.
//!
//! Repository names start with the resource group's name (`demo/hello`). Operators may do everything, host agents pull everything, edges and
//! controllers nothing. A token's scope narrows what its user may do: each entry is `repository:<name or prefix/*>:<pull|push|pull,push>`.

use crate::identity::{GROUP_OPERATORS, Identity};

/// Audience of tokens for the registry.
pub const AUDIENCE: &str = "registry";

/// An action of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read manifests, blobs, tags.
    Pull,
    /// Write or delete them.
    Push,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

/// Whether `identity`, narrowed by the scopes of its token, may do `action` on `repository`.
pub fn allows(identity: &Identity, repository: &str, action: Action) -> bool {
    let scope = identity.scopes();
    let by_identity = identity.is_in(GROUP_OPERATORS) || (action == Action::Pull && identity.host().is_some());
    by_identity && (scope.is_empty() || scope.iter().any(|entry| entry_allows(entry, repository, action)))
}

fn entry_allows(entry: &str, repository: &str, action: Action) -> bool {
    let Some(rest) = entry.strip_prefix("repository:") else { return false };
    let Some((pattern, actions)) = rest.rsplit_once(':') else { return false };
    let fits = match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with('/') && repository.starts_with(prefix) && repository.len() > prefix.len(),
        None => pattern == repository,
    };
    fits && actions.split(',').any(|word| word == action.word())
}
