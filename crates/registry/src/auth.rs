//! Authorisation: decided by the embedding program, before anything of a repository is read.

use async_trait::async_trait;
use http::request::Parts;

use crate::names::Repository;

/// An action on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read manifests, blobs and tags.
    Pull,
    /// Write and delete them.
    Push,
}

/// The reason why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The caller is not authenticated: answered with 401 and a challenge.
    Unauthenticated {
        /// The `WWW-Authenticate` header, such as `Basic realm="evroc registry"`.
        challenge: String,
        /// Explains the fault, and what to do.
        message: String,
    },
    /// The caller may not do this: answered with 403.
    Forbidden {
        /// Names the caller, the action, and who could allow it.
        message: String,
    },
}

/// Decides about requests.
#[async_trait]
pub trait Authorize: Send + Sync + 'static {
    /// Whether the request may do `action` with `repository`. Without a repository (`GET /v2/`, the catalogue's frame,
    /// names that are not valid) the question is only whether the client is known.
    ///
    /// # Errors
    /// Why not.
    async fn authorize(&self, request: &Parts, repository: Option<&Repository>, action: Action) -> Result<(), Denied>;
}

/// Lets everybody do everything; for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

#[async_trait]
impl Authorize for AllowAll {
    async fn authorize(&self, _: &Parts, _: Option<&Repository>, _: Action) -> Result<(), Denied> {
        Ok(())
    }
}
