//! Resolves the image of a container reference, and checks whether it may run.

use async_trait::async_trait;
use evroc_api::conditions::Verdict;
use evroc_api::image_ref::ImageRef;
use thiserror::Error;

/// The registry's data on an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// The digest of the manifest that the reference named.
    pub digest: String,
    /// `USER` of the image's configuration; empty when it has none.
    pub user: String,
    /// `os/architecture` of the configuration, for example `linux/amd64`.
    pub platform: String,
}

/// The reason why the registry could not answer.
#[derive(Debug, Error)]
pub enum ImageError {
    /// There is no such repository, tag or digest.
    #[error("there is no image {repository}:{reference}")]
    NotFound {
        /// The repository.
        repository: String,
        /// The tag or digest.
        reference: String,
    },
    /// The manifest or the configuration is invalid.
    #[error("image {repository}:{reference} cannot be read: {problem}")]
    Invalid {
        /// The repository.
        repository: String,
        /// The tag or digest.
        reference: String,
        /// The fault.
        problem: String,
    },
    /// The registry did not answer: tried again.
    #[error("the registry did not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The cloud's registry, as far as controllers need it.
#[async_trait]
pub trait Images: Send + Sync + 'static {
    /// Reads manifest and configuration of an image for linux/amd64.
    async fn facts(&self, repository: &str, reference: &str) -> Result<ImageFacts, ImageError>;
}

/// The repository that a container may use: in the cloud's registry, under the name of its resource group. Any port is
/// accepted, because the cloud's ports may change.
pub fn own_repository(image: &str, domain: &str, group: &str) -> Result<ImageRef, Verdict> {
    let field = "spec.template.spec.containers[0].image";
    let parsed = ImageRef::parse(image).map_err(|error| Verdict::no("ImageInvalid", format!("{field}: {error}")))?;
    let registry = format!("registry.{domain}");
    if parsed.host != registry {
        let message = format!(
            "{field}: expected an image in the cloud's own registry, {registry}/{group}/…, found host \"{}\"; \
             copy it there: skopeo copy docker://{image} docker://{registry}/{group}/…",
            parsed.host
        );
        return Err(Verdict::no("ImageForeign", message));
    }
    if parsed.repository.split('/').next() != Some(group) || !parsed.repository.contains('/') {
        let message = format!(
            "{field}: expected a repository of this resource group, {group}/…, found \"{}\"",
            parsed.repository
        );
        return Err(Verdict::no("ImageForeign", message));
    }
    Ok(parsed)
}

/// Whether an image may run: for linux/amd64 and not as root.
pub fn allowed(image: &str, facts: &ImageFacts) -> Result<(), Verdict> {
    if facts.platform != "linux/amd64" {
        return Err(Verdict::no(
            "ImagePlatform",
            format!("image {image}: expected linux/amd64, found {}", facts.platform),
        ));
    }
    let user = facts.user.split(':').next().unwrap_or_default();
    if user.is_empty() || user == "root" || user.parse() == Ok(0u32) {
        let found = if user.is_empty() { "no USER".into() } else { format!("USER {}", facts.user) };
        let message = format!(
            "image {image} would run as root: expected a non-root user in its configuration, found {found}; \
             add `USER 65532:65532` to the Dockerfile and push it again under the same name; the revision then starts by itself"
        );
        return Err(Verdict::no("RunsAsRoot", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_registry_and_group() {
        assert!(own_repository("registry.evroc.localhost:8443/demo/hello:v1", "evroc.localhost", "demo").is_ok());
        assert!(own_repository("registry.evroc.localhost/demo/hello:v1", "evroc.localhost", "demo").is_ok());
        for (image, reason) in [
            ("docker.io/library/nginx:1", "ImageForeign"),
            ("registry.evroc.localhost/other/hello:v1", "ImageForeign"),
            ("registry.evroc.localhost/demo:v1", "ImageForeign"),
            ("nginx", "ImageInvalid"),
        ] {
            assert_eq!(own_repository(image, "evroc.localhost", "demo").unwrap_err().reason, reason, "{image}");
        }
    }

    #[test]
    fn root_and_foreign_platforms_are_refused() {
        let facts = |user: &str, platform: &str| ImageFacts {
            digest: "sha256:1".into(),
            user: user.into(),
            platform: platform.into(),
        };
        for user in ["65532:65532", "1000", "app"] {
            assert_eq!(allowed("x", &facts(user, "linux/amd64")), Ok(()), "{user}");
        }
        for user in ["", "0", "0:0", "root", "root:app", "00"] {
            assert_eq!(allowed("x", &facts(user, "linux/amd64")).unwrap_err().reason, "RunsAsRoot", "{user}");
        }
        assert_eq!(allowed("x", &facts("1", "linux/arm64")).unwrap_err().reason, "ImagePlatform");
    }
}
