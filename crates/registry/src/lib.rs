//! OCI distribution registry (specification 1.1) on a folder.
//!
//! ```ignore
//! let registry = Registry::open("…/registry", Arc::new(tenants)).await?;
//! let router = registry.router(Arc::new(authorizer));  // serves /v2/…
//! ```
//! - [`names`]: repositories, tags and digests, valid by construction. [`auth`]: the hook that decides who may do what.
//! - [`tenants`]: the hook that knows who the first part of a repository's name belongs to.
//! - [`storage`]: the folder's layout; content is addressed by digest and written atomically.
//! - `http`: the end points. [`error`]: errors with the specification's codes.
//!
//! Content is verified while it is received; manifests are kept byte for byte. A blob can be read only through a
//! repository that it was pushed to or mounted into.

pub mod auth;
mod divided;
pub mod error;
mod http;
mod manifest;
pub mod names;
mod storage;
pub mod tenants;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use auth::{Action, AllowAll, Authorize, Denied};
pub use error::{Code, RegistryError};
pub use manifest::{DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST};
pub use names::{Algorithm, Digest, Reference, Repository, Tag};
pub use storage::{GarbageReport, StoredManifest};

use divided::Divided;
use storage::{Storage, blocking};
pub use tenants::{AnyTenant, Tenant, TenantError, Tenants};

/// A registry in a folder. Cheap to clone. One process at a time has the folder open.
#[derive(Clone)]
pub struct Registry {
    divided: Divided,
}

impl Registry {
    /// Opens the registry of these tenants in `folder`, which is made if it does not exist. Interrupted uploads are removed.
    ///
    /// # Errors
    /// If the folder cannot be written or has another version's layout.
    pub async fn open(folder: impl AsRef<Path>, tenants: Arc<dyn Tenants>) -> Result<Self, RegistryError> {
        let folder = folder.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || Storage::open(&folder)).await;
        let storage = opened.unwrap_or_else(|error| Err(RegistryError::io("open registry", error.into())))?;
        Ok(Registry { divided: Divided { storage: Arc::new(storage), tenants } })
    }

    /// A router that serves `/v2/` and everything below it. It sets no limits of its own on time, connections or the
    /// size of blobs.
    pub fn router(&self, authorizer: Arc<dyn Authorize>) -> axum::Router {
        http::router(http::Server { storage: self.divided.storage.clone(), divided: self.divided.clone(), authorizer })
    }

    /// Returns the manifest that a tag or digest refers to now.
    ///
    /// # Errors
    /// [`Code::NameUnknown`], [`Code::ManifestUnknown`].
    pub async fn resolve(&self, repository: &Repository, reference: &Reference) -> Result<Digest, RegistryError> {
        self.divided.admit(repository, Action::Pull).await?;
        let (repository, reference) = (repository.clone(), reference.clone());
        blocking(&self.divided.storage, move |storage| storage.resolve(&repository, &reference)).await
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// As [`Registry::resolve`].
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<StoredManifest, RegistryError> {
        self.divided.admit(repository, Action::Pull).await?;
        let (repository, reference) = (repository.clone(), reference.clone());
        blocking(&self.divided.storage, move |storage| storage.manifest(&repository, &reference)).await
    }

    /// Reads a small blob, such as an image's configuration.
    ///
    /// # Errors
    /// [`Code::BlobUnknown`]; [`Code::SizeInvalid`] if it has more than `limit` bytes.
    pub async fn blob(&self, repository: &Repository, digest: &Digest, limit: usize) -> Result<Vec<u8>, RegistryError> {
        self.divided.admit(repository, Action::Pull).await?;
        let (repository, digest) = (repository.clone(), digest.clone());
        blocking(&self.divided.storage, move |storage| storage.read_blob(&repository, &digest, limit)).await
    }

    /// Removes the repositories of tenants that no longer exist, then what nothing refers to any more and what has existed longer than
    /// `grace`, which must be longer than the longest push takes. Manifests without a tag are kept: they are pulled by digest.
    ///
    /// # Errors
    /// If files cannot be read or removed, or if the tenants are not known now; then nothing was removed that is needed.
    pub async fn collect_garbage(&self, grace: Duration) -> Result<GarbageReport, RegistryError> {
        self.divided.forget_absent().await?;
        blocking(&self.divided.storage, move |storage| storage.collect_garbage(grace)).await
    }

    /// Removes all repositories of a tenant, and its unfinished uploads; returns how many repositories there were. Their content goes with
    /// the next collection of garbage. Those of another tenant with the same name are left alone.
    ///
    /// # Errors
    /// If files cannot be removed.
    pub async fn forget(&self, name: &str, uid: &str) -> Result<usize, RegistryError> {
        let (name, uid) = (name.to_owned(), uid.to_owned());
        blocking(&self.divided.storage, move |storage| storage.forget(&name, &uid)).await
    }
}
