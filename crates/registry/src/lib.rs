//! OCI distribution registry (specification 1.1) on a folder.
//!
//! ```ignore
//! let registry = Registry::open("…/registry").await?;
//! let router = registry.router(Arc::new(authorizer));  // serves /v2/…
//! ```
//! - [`names`]: repositories, tags and digests, valid by construction. [`auth`]: the hook that decides who may do what.
//! - [`storage`]: the folder's layout; content is addressed by digest and written atomically.
//! - `http`: the end points. [`error`]: errors with the specification's codes.
//!
//! Content is verified while it is received; manifests are kept byte for byte. A blob can be read only through a
//! repository that it was pushed to or mounted into.

pub mod auth;
pub mod error;
mod http;
mod manifest;
pub mod names;
mod storage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use auth::{Action, AllowAll, Authorize, Denied};
pub use error::{Code, RegistryError};
pub use manifest::{DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST};
pub use names::{Algorithm, Digest, Reference, Repository, Tag};
pub use storage::{GarbageReport, StoredManifest};

use storage::{Storage, blocking};

/// A registry in a folder. Cheap to clone. One process at a time has the folder open.
#[derive(Clone)]
pub struct Registry {
    storage: Arc<Storage>,
}

impl Registry {
    /// Opens the registry in `folder`, which is made if it does not exist. Interrupted uploads are removed.
    ///
    /// # Errors
    /// If the folder cannot be written or has another version's layout.
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self, RegistryError> {
        let folder = folder.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || Storage::open(&folder)).await;
        let storage = opened.unwrap_or_else(|error| Err(RegistryError::io("open registry", error.into())))?;
        Ok(Registry { storage: Arc::new(storage) })
    }

    /// A router that serves `/v2/` and everything below it. It sets no limits of its own on time, connections or the
    /// size of blobs.
    pub fn router(&self, authorizer: Arc<dyn Authorize>) -> axum::Router {
        http::router(http::Server { storage: self.storage.clone(), authorizer })
    }

    /// Returns the manifest that a tag or digest refers to now.
    ///
    /// # Errors
    /// [`Code::NameUnknown`], [`Code::ManifestUnknown`].
    pub async fn resolve(&self, repository: &Repository, reference: &Reference) -> Result<Digest, RegistryError> {
        let (repository, reference) = (repository.clone(), reference.clone());
        blocking(&self.storage, move |storage| storage.resolve(&repository, &reference)).await
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
        let (repository, reference) = (repository.clone(), reference.clone());
        blocking(&self.storage, move |storage| storage.manifest(&repository, &reference)).await
    }

    /// Reads a small blob, such as an image's configuration.
    ///
    /// # Errors
    /// [`Code::BlobUnknown`]; [`Code::SizeInvalid`] if it has more than `limit` bytes.
    pub async fn blob(&self, repository: &Repository, digest: &Digest, limit: usize) -> Result<Vec<u8>, RegistryError> {
        let (repository, digest) = (repository.clone(), digest.clone());
        blocking(&self.storage, move |storage| storage.read_blob(&repository, &digest, limit)).await
    }

    /// Removes what nothing refers to any more and what has been there longer than `grace`, which must be longer than
    /// the longest push takes.
    ///
    /// # Errors
    /// If files cannot be read or removed.
    pub async fn collect_garbage(&self, grace: Duration) -> Result<GarbageReport, RegistryError> {
        blocking(&self.storage, move |storage| storage.collect_garbage(grace)).await
    }

    /// Removes all repositories whose name begins with `prefix`, such as `demo/`; returns how many there were. Their
    /// content goes with the next collection of garbage.
    ///
    /// # Errors
    /// If files cannot be removed.
    pub async fn delete_repositories(&self, prefix: &str) -> Result<usize, RegistryError> {
        let prefix = prefix.to_owned();
        blocking(&self.storage, move |storage| storage.delete_repositories(&prefix)).await
    }
}
