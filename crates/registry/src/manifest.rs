//! The parts of a manifest that the registry reads. Manifests are stored and returned byte for byte.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Code, RegistryError};
use crate::names::Digest;

/// Larger manifests are refused, as the specification suggests.
pub const MANIFEST_BYTES: usize = 4 << 20;

/// An OCI index: manifests for several platforms, or referrers.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's form of an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's form of an image.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A reference to content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The addresses of content that no registry may hand out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

/// A manifest that was understood.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub media_type: String,
    /// Blobs that must be in the repository.
    pub blobs: Vec<Digest>,
    /// Manifests that must be in the repository.
    pub manifests: Vec<Digest>,
    /// The manifest that this one is about; it need not exist.
    pub subject: Option<Digest>,
    pub artifact_type: Option<String>,
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads a manifest that was sent with `content_type`.
    pub fn parse(content_type: Option<&str>, content: &[u8]) -> Result<Self, RegistryError> {
        let invalid = |message: String| RegistryError::new(Code::ManifestInvalid, message);
        let document: Document =
            serde_json::from_slice(content).map_err(|error| invalid(format!("manifest is not valid: {error}")))?;
        if document.schema_version != 2 {
            return Err(invalid(format!(
                "schemaVersion: found {}, expected 2: build or copy the image with a current tool",
                document.schema_version
            )));
        }
        // Parameters (a charset) do not change the type.
        let content_type = content_type
            .map(|value| value.split(';').next().unwrap_or_default().trim())
            .filter(|value| !value.is_empty());
        let media_type = match (content_type, document.media_type.as_deref()) {
            (Some(header), Some(field)) if header != field => {
                return Err(invalid(format!(
                    "mediaType is {field}, but the Content-Type header says {header}: both must be the same"
                )));
            }
            (Some(found), _) | (None, Some(found)) => found.to_owned(),
            (None, None) => {
                return Err(invalid("Content-Type header is missing and the manifest has no mediaType".to_owned()));
            }
        };
        let mut manifest = Manifest {
            media_type,
            blobs: Vec::new(),
            manifests: Vec::new(),
            subject: None,
            artifact_type: document.artifact_type.filter(|kind| !kind.is_empty()),
            annotations: document.annotations,
        };
        match &manifest.media_type[..] {
            OCI_MANIFEST | DOCKER_MANIFEST => {
                let config =
                    document.config.ok_or_else(|| invalid("config: missing in an image manifest".to_owned()))?;
                manifest.blobs.push(digest("config", &config)?);
                manifest.artifact_type = manifest.artifact_type.or(Some(config.media_type));
                for layer in document.layers.iter().flatten() {
                    if is_stored_here(layer) {
                        manifest.blobs.push(digest("layers", layer)?);
                    }
                }
            }
            OCI_INDEX | DOCKER_LIST => {
                let manifests =
                    document.manifests.ok_or_else(|| invalid("manifests: missing in an index".to_owned()))?;
                for child in &manifests {
                    manifest.manifests.push(digest("manifests", child)?);
                }
            }
            other => {
                return Err(invalid(format!(
                    "media type {other} is not supported: expected one of {OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
                )));
            }
        }
        if let Some(subject) = &document.subject {
            manifest.subject = Some(digest("subject", subject)?);
        }
        Ok(manifest)
    }
}

fn digest(field: &str, descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    descriptor
        .digest
        .parse()
        .map_err(|error: RegistryError| RegistryError::new(Code::ManifestInvalid, format!("{field}: {error}")))
}

/// Layers that may not be distributed stay at their `urls`.
fn is_stored_here(layer: &Descriptor) -> bool {
    let is_foreign = layer.media_type.contains(".foreign.") || layer.media_type.contains(".nondistributable.");
    !is_foreign || layer.urls.is_empty()
}
