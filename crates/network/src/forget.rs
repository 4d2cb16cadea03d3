//! Removes a resource group's data outside the API together with the group.

use async_trait::async_trait;
use thiserror::Error;

/// Keeps something for resource groups by their names, for example a registry. A later group of the same name must not inherit it.
#[async_trait]
pub trait ForgetGroup: Send + Sync + 'static {
    /// Removes everything that is kept for the group with this name and uid. Called again until it succeeds; a group for which nothing is
    /// kept is no error.
    async fn forget(&self, group: &str, uid: &str) -> Result<(), ForgetError>;
}

/// Something of a group could not be removed.
#[derive(Debug, Error)]
#[error("remove {what} of resource group \"{group}\"")]
pub struct ForgetError {
    /// The things that could not be removed, for example "the images".
    pub what: String,
    /// The resource group.
    pub group: String,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
