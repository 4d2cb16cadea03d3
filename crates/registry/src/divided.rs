//! Storage as divided among tenants: who may use a name now is asked before anything below it is looked at.

use std::sync::Arc;

use http::StatusCode;

use crate::auth::Action;
use crate::error::{Code, RegistryError};
use crate::names::Repository;
use crate::storage::{Storage, blocking, unknown_owner};
use crate::tenants::{Tenant, Tenants};

/// Storage, and the tenants that it is divided among.
#[derive(Clone)]
pub(crate) struct Divided {
    pub storage: Arc<Storage>,
    pub tenants: Arc<dyn Tenants>,
}

impl Divided {
    /// Returns the uid of the tenant that a repository belongs to, after removing what a former tenant of the same name left.
    pub async fn admit(&self, repository: &Repository, action: Action) -> Result<String, RegistryError> {
        let name = repository.first_component();
        let tenant = self.present(name).await?.ok_or_else(|| unknown_owner(repository))?;
        if tenant.is_ending && action == Action::Push {
            return Err(RegistryError::new(
                Code::Denied,
                format!("resource group {name} is being deleted: nothing can be pushed to {repository}"),
            ));
        }
        let (name, uid) = (name.to_owned(), tenant.uid.clone());
        blocking(&self.storage, move |storage| storage.bind(&name, &uid)).await?;
        Ok(tenant.uid)
    }

    /// Removes the repositories of all tenants that no longer exist. Returns how many tenants that were.
    pub async fn forget_absent(&self) -> Result<usize, RegistryError> {
        let mut forgotten = 0;
        for (name, uid) in self.storage.owners() {
            if self.present(&name).await?.is_none_or(|tenant| tenant.uid != uid) {
                blocking(&self.storage, move |storage| storage.forget(&name, &uid)).await?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    async fn present(&self, name: &str) -> Result<Option<Tenant>, RegistryError> {
        self.tenants.tenant(name).await.map_err(|error| {
            RegistryError::io(error.to_string(), std::io::Error::other(error.source))
                .with_status(StatusCode::SERVICE_UNAVAILABLE)
        })
    }
}
