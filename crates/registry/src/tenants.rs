//! Tenants: who the first part of a repository's name belongs to (`demo` of `demo/hello`), now.
//!
//! Names come back, tenants do not: a repository belongs to the tenant that had the name when it was pushed, by the tenant's uid. A later
//! tenant of the same name finds none of it.

use async_trait::async_trait;
use thiserror::Error;

/// The holder of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Never used again, unlike the name.
    pub uid: String,
    /// Whether it is being deleted: its images can be pulled, and nothing can be pushed any more.
    pub is_ending: bool,
}

/// The holder of a name could not be found out.
#[derive(Debug, Error)]
#[error("find out who \"{name}\" belongs to")]
pub struct TenantError {
    /// The name.
    pub name: String,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Knows the tenants.
#[async_trait]
pub trait Tenants: Send + Sync + 'static {
    /// Returns the present holder of a name; `None` if there is none.
    ///
    /// # Errors
    /// If that is not known now.
    async fn tenant(&self, name: &str) -> Result<Option<Tenant>, TenantError>;
}

/// Has a tenant for every name, whose uid is the name; for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyTenant;

#[async_trait]
impl Tenants for AnyTenant {
    async fn tenant(&self, name: &str) -> Result<Option<Tenant>, TenantError> {
        Ok(Some(Tenant { uid: name.to_owned(), is_ending: false }))
    }
}
