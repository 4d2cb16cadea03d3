//! From the digest in a reference to a configuration and a list of layers.

use super::error::ImageError;
use super::receive::receive;
use super::{ImageReference, ImageStore, MAX_LAYERS};
use crate::container::digest::Digest;
use crate::container::manifest::{Descriptor, Document, ImageConfig, Platform};
use crate::container::user::refuse_obvious_root;

impl ImageStore {
    /// From the digest to a configuration that we can run, and the layers to fetch (lowest first).
    pub(super) async fn resolve(
        &self,
        reference: &ImageReference,
    ) -> Result<(ImageConfig, Vec<Descriptor>), ImageError> {
        let image = || reference.written.clone();
        let invalid = |what: &str, problem: String| ImageError::Invalid { image: image(), what: what.into(), problem };
        let mut digest = reference.digest;
        let mut document = self.manifest(reference, digest, None).await?;
        if let Document::Index(entries) = document {
            let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(Platform::is_supported);
            let entry = entries.iter().find(fits).ok_or_else(|| ImageError::Platform {
                image: image(),
                found: platforms(entries.iter().filter_map(|entry| entry.platform.as_ref())),
            })?;
            digest = entry.digest;
            document = self.manifest(reference, digest, Some(entry.size)).await?;
        }
        let Document::Manifest { config: config_at, layers } = document else {
            return Err(invalid("index", "an index inside an index".into()));
        };
        let what = format!("configuration {}", config_at.digest);
        let stream = self
            .fetch
            .blob(&reference.repository, config_at.digest)
            .await
            .map_err(|source| ImageError::Fetch { image: image(), what: what.clone(), source })?;
        let bytes = receive(reference, &what, stream, config_at.digest, Some(config_at.size)).await?;
        let config: ImageConfig =
            serde_json::from_slice(&bytes).map_err(|error| invalid("configuration", error.to_string()))?;
        if !config.platform.is_supported() {
            return Err(ImageError::Platform { image: image(), found: platforms([&config.platform].into_iter()) });
        }
        if layers.len() != config.rootfs.diff_ids.len() {
            let (found, expected) = (config.rootfs.diff_ids.len(), layers.len());
            return Err(invalid(
                "configuration",
                format!("expected {expected} diff_ids, as many as layers, found {found}"),
            ));
        }
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            return Err(invalid("manifest", format!("expected 1 to {MAX_LAYERS} layers, found {}", layers.len())));
        }
        refuse_obvious_root(&config.config.user).map_err(|source| ImageError::User { image: image(), source })?;
        Ok((config, layers))
    }

    async fn manifest(
        &self,
        reference: &ImageReference,
        digest: Digest,
        size: Option<u64>,
    ) -> Result<Document, ImageError> {
        let what = format!("manifest {digest}");
        let stream = self.fetch.manifest(&reference.repository, digest).await.map_err(|source| ImageError::Fetch {
            image: reference.written.clone(),
            what: what.clone(),
            source,
        })?;
        let bytes = receive(reference, &what, stream, digest, size).await?;
        Document::parse(&bytes).map_err(|problem| ImageError::Invalid {
            image: reference.written.clone(),
            what,
            problem,
        })
    }
}

fn platforms<'a>(platforms: impl Iterator<Item = &'a Platform>) -> String {
    let mut names: Vec<_> = platforms
        .map(|platform| match (platform.os.as_str(), platform.architecture.as_str()) {
            ("", _) | (_, "") => "an unnamed platform".to_owned(),
            (os, architecture) => format!("{os}/{architecture}"),
        })
        .collect();
    names.dedup();
    if names.is_empty() { "no platform".into() } else { names.join(", ") }
}
