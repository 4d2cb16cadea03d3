//! The registry among the API's objects: what is known of an image, which resource group a repository belongs to, and removing a group's
//! repositories.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use evroc_api::iam::ResourceGroup;
use evroc_network::{ForgetError, ForgetGroup};
use evroc_registry::{
    Code, DOCKER_LIST, Digest, OCI_INDEX, Reference, Registry, RegistryError, Repository, Tenant, TenantError, Tenants,
};
use evroc_run::image::{ImageError, ImageFacts, Images};
use kube::api::Api;
use kube::{Client, ResourceExt};
use serde_json::Value;

/// Configurations of images are small; a larger one is none.
const LARGEST_CONFIGURATION: usize = 4 << 20;

/// Resource groups as the tenants of the registry. The registry is served beside the API, so it is opened before there is a client.
#[derive(Clone, Default)]
pub struct Groups(Arc<OnceLock<Client>>);

impl Groups {
    /// Reads groups with this client from now on. Until then no group is known and the registry answers that it is not available.
    pub fn begin(&self, client: Client) {
        // A second client would be one of the same server.
        let _first = self.0.set(client);
    }
}

#[async_trait]
impl Tenants for Groups {
    async fn tenant(&self, name: &str) -> Result<Option<Tenant>, TenantError> {
        let failed = |source| TenantError { name: name.to_owned(), source };
        let client = self.0.get().ok_or_else(|| failed("the API does not answer yet".into()))?;
        let groups = Api::<ResourceGroup>::all(client.clone());
        let group = groups.get_opt(name).await.map_err(|error| failed(error.into()))?;
        Ok(group.and_then(|group| {
            let is_ending = group.metadata.deletion_timestamp.is_some();
            Some(Tenant { uid: group.uid()?, is_ending })
        }))
    }
}

/// The cloud's own registry.
pub struct RegistryImages(pub Registry);

#[async_trait]
impl Images for RegistryImages {
    async fn facts(&self, repository: &str, reference: &str) -> Result<ImageFacts, ImageError> {
        let image = Image { repository, reference };
        let name: Repository = repository.parse().map_err(|error| image.unreadable(error))?;
        let reference: Reference = reference.parse().map_err(|error| image.unreadable(error))?;
        let named = self.0.manifest(&name, &reference).await.map_err(|error| image.unreadable(error))?;
        let mut document = image.json(&named.content)?;
        if named.media_type == OCI_INDEX || named.media_type == DOCKER_LIST {
            let digest = image.amd64(&document)?;
            let manifest =
                self.0.manifest(&name, &Reference::Digest(digest)).await.map_err(|error| image.unreadable(error))?;
            document = image.json(&manifest.content)?;
        }
        let digest = image.digest(&document["config"]["digest"])?;
        let config =
            self.0.blob(&name, &digest, LARGEST_CONFIGURATION).await.map_err(|error| image.unreadable(error))?;
        let config = image.json(&config)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(ImageFacts {
            digest: named.digest.to_string(),
            user: text(&config["config"]["User"]),
            platform: format!("{}/{}", text(&config["os"]), text(&config["architecture"])),
        })
    }
}

#[async_trait]
impl ForgetGroup for RegistryImages {
    /// Removes the repositories of a group; their content goes with the next collection of garbage.
    async fn forget(&self, group: &str, uid: &str) -> Result<(), ForgetError> {
        let removed = self.0.forget(group, uid).await.map_err(|source| ForgetError {
            what: "the images".into(),
            group: group.into(),
            source: source.into(),
        })?;
        if removed > 0 {
            tracing::info!(group, removed, "repositories of a deleted resource group were removed");
        }
        Ok(())
    }
}

struct Image<'a> {
    repository: &'a str,
    reference: &'a str,
}

impl Image<'_> {
    fn invalid(&self, problem: impl Into<String>) -> ImageError {
        ImageError::Invalid {
            repository: self.repository.into(),
            reference: self.reference.into(),
            problem: problem.into(),
        }
    }

    fn unreadable(&self, error: RegistryError) -> ImageError {
        match error.code() {
            Code::NameUnknown | Code::ManifestUnknown => {
                ImageError::NotFound { repository: self.repository.into(), reference: self.reference.into() }
            }
            _ if error.status().is_client_error() => self.invalid(error.to_string()),
            _ => ImageError::Unavailable(Box::new(error)),
        }
    }

    fn json(&self, bytes: &[u8]) -> Result<Value, ImageError> {
        serde_json::from_slice(bytes).map_err(|error| self.invalid(error.to_string()))
    }

    fn digest(&self, value: &Value) -> Result<Digest, ImageError> {
        let text = value.as_str().ok_or_else(|| self.invalid("expected a digest, found none"))?;
        text.parse().map_err(|error: RegistryError| self.invalid(error.to_string()))
    }

    /// The manifest for linux/amd64 of an index.
    fn amd64(&self, index: &Value) -> Result<Digest, ImageError> {
        let fits = |m: &&Value| m["platform"]["os"] == "linux" && m["platform"]["architecture"] == "amd64";
        let found = index["manifests"].as_array().and_then(|all| all.iter().find(fits));
        self.digest(&found.ok_or_else(|| self.invalid("expected a manifest for linux/amd64 in the index, found none"))?["digest"])
    }
}
